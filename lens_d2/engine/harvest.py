"""The stage "harvest": rounds of Lesion-Harvester, each complete or absent.

A round has its folder ``harvest/round_<k>`` below ``OUTPUT_DIR``. What it leaves, in this order:

    generator/       the proposal generator, trained or fine-tuned: model_final.pth
    proposals/       its boxes on the slices of all sub-volumes, a file each
    lpc/             the classifier: model_final.pth; fold_<i>/ those that judge a part of V_M
    scored/          the 3D proposals with both scores, a file for each sub-volume
    ledger.parquet, ledger.csv, lesions.parquet, harvested.pkl, recovered.pkl, hard_negatives.pkl, measures.json
    round.json       the round is finished
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng

from ..data.cache import build_cache
from ..data.ledger.table import read_ledger, write_ledger
from ..data.ledger.table import to_table as ledger_table
from ..data.loader import load_records
from ..evaluation.plots import plot_harvest
from ..inference.rescoring import load_classifier, score_proposals
from ..io.errors import DataError
from ..io.files import write_whole
from ..io.formats import write_tracklets
from ..mining.datasets import mined_datasets
from ..mining.harvester.measures import PRECISIONS, HarvestMeasure, format_rows
from ..mining.harvester.pool import Harvested, from_table, to_table, with_verdicts
from ..mining.harvester.rounds import LABEL_SETS, Harvest, Rules, harvest_round, known_proposals
from ..mining.harvester.tracker import BoxTracker
from ..mining.lens.mine import LEDGER, LEDGER_CSV
from ..mining.proposals import open_shards, propose
from ..mining.shards import ShardStore
from ..modeling.classifiers import build_loss
from ..modeling.classifiers.build import CLASSIFIER_REGISTRY
from ..structures.detections import VolumeDetections
from .classifier import train_lpc
from .stages import COMPLETE, STAGES, Run, load_model, train_model

logger = logging.getLogger(__name__)

ROUND, TRAINED, MEASURES, LESIONS = "round.json", "trained.json", "measures.json", "lesions.parquet"
TABLE = ("table.csv", "table.json", "curves.png")
GROUP = "proposals"


@STAGES.register()
def harvest(run: Run) -> dict:
    """Lesion-Harvester: generate, classify, harvest, fine-tune, until the labels get no more complete."""
    cfg, finished = run.cfg, []
    if not run.resume and comm.is_main_process():
        for path in [*run.folder("harvest").glob(f"*/{ROUND}"), *run.folder("harvest").glob(f"*/*/{TRAINED}")]:
            path.unlink()
    comm.synchronize()
    volumes = HarvestVolumes(cfg)
    _check(cfg, volumes)
    for number in range(1, cfg.HARVEST.ROUNDS + 1):
        path = _folder(run, number) / ROUND
        result = once(path, lambda k=number: HarvestRound(run, volumes, k, finished).run())
        finished.append(result)
        _report(run, volumes, finished)
        if _converged(finished):
            logger.info("the mean recall no longer rises: round %d is the last", number)
            break
    best = max(finished, key=lambda result: result["mean"])  # the first of the best
    return {**best, "rounds": finished}


def _converged(rounds: Sequence[dict]) -> bool:
    """Whether the last round's labels are no more complete than those of the round before."""
    return len(rounds) > 1 and rounds[-1]["mean"] <= rounds[-2]["mean"]


def _complete(cfg: CfgNode, result: dict) -> bool:
    """More rounds may be asked for, as after a reader has judged the last one's ledger."""
    if len(result["rounds"]) >= cfg.HARVEST.ROUNDS:
        return True
    if _converged(result["rounds"]):
        logger.warning("harvest: no further round, as the mean recall no longer rose in the last one")
        return True
    return False


COMPLETE[harvest.__name__] = _complete


def _check(cfg: CfgNode, volumes: HarvestVolumes) -> None:
    """A fault in the settings shows before the first training, not after it."""
    keys, patients = cfg.HARVEST, len({record["patient"] for record in volumes.verified})
    groups = ("fused", *cfg.MODEL.LENS.EXPERTS)
    faults = {
        "HARVEST.ROUNDS": keys.ROUNDS < 1 and f"there has to be a round, not {keys.ROUNDS}",
        "HARVEST.PROPOSALS": keys.PROPOSALS not in groups and f"{keys.PROPOSALS!r} is none of {', '.join(groups)}",
        "HARVEST.FOLDS": keys.FOLDS not in (0, *range(2, patients + 1))
        and f"{keys.FOLDS}, where {keys.VERIFIED} has {patients} patients: 0, or from 2 to these",
        "HARVEST.NEGATIVE_IOU": keys.NEGATIVE_IOU <= 0 and f"it has to be above 0, not {keys.NEGATIVE_IOU}",
        "HARVEST.LABELS": not set(keys.LABELS) <= set(LABEL_SETS) and f"what is known is {', '.join(LABEL_SETS)}",
        "DATASETS.LEDGER": cfg.DATASETS.LEDGER
        and "harvesting makes its own; a ledger of V_M may be registered as a dataset (docs/harvesting.md)",
    }
    for name, fault in faults.items():
        if fault:
            raise DataError(name, fault)
    BoxTracker.from_config(cfg)
    CLASSIFIER_REGISTRY.get(cfg.MODEL.LPC.NAME)
    build_loss(cfg.MODEL.LPC)
    if cfg.MODEL.LPC.WEIGHTS:
        load_classifier(cfg, "LPC")


def once(path: Path, work: Callable[[], dict]) -> dict:
    """What is in a JSON file; where it is absent, the result of ``work``, which is put there when that is done."""
    there = comm.all_gather(json.loads(path.read_text()) if path.exists() else None)[0]
    if there is not None:
        logger.info("%s: complete", path.parent)
        return there
    result = comm.all_gather(work())[0]
    if comm.is_main_process():
        write_whole(path, json.dumps(result, indent=1).encode())
    comm.synchronize()
    return result


def _folder(run: Run, number: int) -> Path:
    return run.folder("harvest") / f"round_{number}"


class HarvestVolumes:
    """The sub-volumes of a harvest.

    Attributes:
        verified: the records of V_M. partial: those of V_H, with the original marks.
        measure: knows V_H-test.
    """

    def __init__(self, cfg: CfgNode):
        """
        Raises:
            DataError: a set is not trained on, or a sub-volume is in V_M and in V_H.
        """
        keys = cfg.HARVEST
        for name in (keys.VERIFIED, *keys.DATASETS):
            if name not in cfg.DATASETS.TRAIN:
                raise DataError(name, "HARVEST.VERIFIED and HARVEST.DATASETS have to be among DATASETS.TRAIN")
        cache = build_cache(cfg)
        self.verified = load_records((keys.VERIFIED,), cache)
        names = keys.DATASETS or tuple(x for x in mined_datasets(cfg) if x != keys.VERIFIED)
        self.partial = load_records(names, cache)
        twice = {r["volume"] for r in self.verified} & {r["volume"] for r in self.partial}
        if twice:
            raise DataError(min(twice), f"it is in HARVEST.VERIFIED ({keys.VERIFIED}) and in {', '.join(names)}")
        self.measure = HarvestMeasure(keys.TEST, self.partial, keys.HIT_IOU)
        apart = {r["volume"] for r in self.measure.records} - {r["volume"] for r in self.partial}
        if apart:
            logger.warning(
                "%s: %d sub-volumes, as %s, are not in V_H: what earlier rounds harvested does not count there",
                *(keys.TEST, len(apart), min(apart)),
            )

    def folds(self, number: int) -> dict[str, int]:
        """Which of so many parts of V_M a sub-volume belongs to; all of a patient's to the same. Empty with 0."""
        patients = sorted({record["patient"] for record in self.verified})
        return {r["volume"]: patients.index(r["patient"]) % number for r in self.verified} if number else {}

    @property
    def training(self) -> list[dict]:
        return [*self.verified, *self.partial]

    @property
    def all(self) -> list[dict]:
        """Each sub-volume once."""
        return list({r["volume"]: r for r in [*self.measure.records, *self.training]}.values())


class HarvestRound:
    """One round; ``run()`` goes on from the last finished unit of work."""

    def __init__(self, run: Run, volumes: HarvestVolumes, number: int, earlier: Sequence[dict]):
        self.run_, self.volumes, self.number = run, volumes, number
        self.rounds, self.earlier = earlier, earlier[-1] if earlier else None
        self.folder = _folder(run, number)
        self.keys = run.cfg.HARVEST

    def run(self) -> dict:
        """What later rounds and stages have of it."""
        weights = self.keys.WEIGHTS if self.number == 1 else ""
        if not weights:
            weights = self._once("generator", self._train_generator)["weights"]
        cfg = self.run_.cfg
        shards = open_shards(cfg, load_model(cfg, weights), self.folder / "proposals")
        propose(self.volumes.all, shards)
        stacked = self._stacked(shards)
        given = {"lpc": cfg.MODEL.LPC.WEIGHTS} if self.number == 1 else {}
        classifiers = [
            given.get(step)
            or self._once(step, lambda s=step, f=fold: self._train_classifier(stacked, s, f))["weights"]
            for fold, step in enumerate(["lpc", *(f"fold_{i}" for i in range(self.keys.FOLDS))], start=-1)
        ]
        scored = self._scored(shards, stacked, classifiers)
        propose(self.volumes.all, scored)
        if comm.is_main_process():
            result = self._harvest(lambda record: scored.read(record)[GROUP])
            return {"round": self.number, "weights": weights, "classifier": classifiers[0], **result}
        return {}

    @cached_property
    def _before(self) -> list[Harvested]:
        """The pool of the last round, with what a reader has made of the rounds' ledgers."""
        pool = read_lesions(self.earlier["lesions"]) if self.earlier else []
        for each in self.rounds:
            pool = with_verdicts(pool, read_ledger(each["ledger"]))
        return pool

    def _once(self, step: str, work: Callable[[], dict]) -> dict:
        """A training, unless it is finished."""
        return once(self.folder / step / TRAINED, work)

    def _config(self, step: str, *opts) -> CfgNode:
        return self.run_.config(f"harvest/{self.folder.name}/{step}", *opts)

    def _train_generator(self) -> dict:
        """Step 1: on the given marks; from the second round on fine-tuned, with what has been harvested."""
        opts = ["DATASETS.TEST", (), "TEST.EXPECTED_RESULTS", [], "MODEL.FPR.WEIGHTS", "", "MINING.STRATEGIES", ()]
        if self.earlier:
            for key, value in self.keys.FINETUNE.items():
                opts += [f"SOLVER.{key}", value]
            opts += ["MODEL.WEIGHTS", self.earlier["weights"], "DATASETS.LEDGER", self.earlier["ledger"]]
        else:
            opts += ["DATASETS.LEDGER", ""]
        self._seed()
        return train_model(self._config("generator", *opts), self.run_.resume)

    def _seed(self) -> None:
        """The same random numbers, whether what came before ran in this process or not."""
        if self.run_.cfg.SEED >= 0:
            seed_all_rng(self.run_.cfg.SEED + 1000 * self.number + comm.get_rank())

    def _stacked(self, shards: ShardStore) -> Callable[[dict], VolumeDetections]:
        """Step 2: 3D proposals."""
        tracker = BoxTracker.from_config(self.run_.cfg)
        group = self.keys.PROPOSALS
        return lambda record: tracker(shards.read(record)[group].slice_boxes, record["num_slices"])

    def _train_classifier(self, stacked: Callable[[dict], VolumeDetections], step: str, fold: int) -> dict:
        """Step 3: on P_H^R and P_M^R against P_M^-, without one fold of V_M where that is not -1."""
        folds = self.volumes.folds(self.keys.FOLDS)
        rules, before = Rules.from_config(self.run_.cfg), self._before
        verified = [record for record in self.volumes.verified if fold == -1 or folds[record["volume"]] != fold]
        positives, negatives = known_proposals(verified, stacked, rules, before)
        marked, _ = known_proposals(self.volumes.partial, stacked, rules, before)
        start = self.earlier["classifier"] if self.earlier and self.keys.FINETUNE_CLASSIFIER else ""
        cfg = self.run_.cfg.clone()
        cfg.defrost()
        cfg.OUTPUT_DIR = str(self.folder / step if fold >= 0 else self.folder)
        cfg.freeze()
        records = [*verified, *self.volumes.partial]
        return {"weights": train_lpc(cfg, records, positives | marked, negatives, self.run_.resume, start)}

    def _scored(
        self, shards: ShardStore, stacked: Callable[[dict], VolumeDetections], weights: Sequence[str]
    ) -> ShardStore:
        """Step 4, its first half: scores of the classifier for all, or of that for a fold, by their weights."""
        cfg = self.run_.cfg
        classifiers = [load_classifier(cfg, "LPC", path) for path in weights]
        folds = self.volumes.folds(self.keys.FOLDS)

        def make(record: dict) -> dict[str, VolumeDetections]:
            found = stacked(record)
            classifier = classifiers[1 + folds.get(record["volume"], -1)]
            ((_, scores),) = score_proposals(cfg, classifier, [record], {record["volume"]: found.boxes})
            return {GROUP: replace(found, fpr_scores=scores)}

        of_weights = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in weights]
        made_of = [
            shards.fingerprint,
            of_weights,
            cfg.MODEL.LPC.dump(),
            self.keys.TRACKER.dump(),
            self.keys.PROPOSALS,
        ]
        fingerprint = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]
        return ShardStore(self.folder / "scored", fingerprint, make)

    def _harvest(self, scored: Callable[[dict], VolumeDetections]) -> dict:
        """Step 4: lesions and hard negatives, written and measured. On one rank."""
        volumes, rules, before = self.volumes, Rules.from_config(self.run_.cfg), self._before
        harvested = harvest_round(volumes.verified, volumes.partial, scored, before, self.number, rules)
        self._write(harvested)
        test = {record["volume"]: scored(record) for record in volumes.measure.records}
        rows, curves = volumes.measure.of_round(self.number, test, before)
        write_whole(self.folder / MEASURES, json.dumps({"rows": rows, "curves": curves}).encode())
        negatives = len(harvested.verified_negatives) + len(harvested.negatives)
        logger.info(
            "round %d: threshold %.4f, precision on V_M %.3f; %d lesions, %d of them new; %d hard negatives",
            *(
                self.number,
                harvested.threshold,
                harvested.precision,
                len(harvested.lesions),
                harvested.new,
                negatives,
            ),
        )
        return {
            "ledger": str(self.folder / LEDGER),
            "lesions": str(self.folder / LESIONS),
            "threshold": harvested.threshold if np.isfinite(harvested.threshold) else None,
            "harvested": sum(not x.annotation for x in harvested.lesions),
            "recovered": sum(bool(x.annotation) for x in harvested.lesions),
            "new": harvested.new,
            "hard_negatives": negatives,
            "mean": rows[-1]["mean"],
        }

    def _write(self, harvested: Harvest) -> None:
        rows = ledger_table(harvested.rows(self.volumes.training, self.keys.LABELS, self.keys.NEGATIVE_SLICES))
        for name in (LEDGER, LEDGER_CSV):
            write_ledger(self.folder / name, [rows])
        sink = pa.BufferOutputStream()
        pq.write_table(to_table(harvested.pool), sink, compression="zstd")
        write_whole(self.folder / LESIONS, sink.getvalue())
        parts = {
            "harvested": [x for x in harvested.lesions if not x.annotation],
            "recovered": [x for x in harvested.lesions if x.annotation],
            "hard_negatives": [*harvested.verified_negatives, *harvested.negatives],
        }
        for name, lesions in parts.items():
            write_tracklets(self.folder / f"{name}.pkl", by_volume(lesions))


def by_volume(lesions: Sequence[Harvested]) -> dict[str, list[np.ndarray]]:
    """{sub-volume: the slice boxes of each of its lesions}, as the released files have them."""
    volumes: dict[str, list[np.ndarray]] = {}
    for lesion in lesions:
        volumes.setdefault(lesion.volume, []).append(lesion.slice_boxes)
    return volumes


def read_lesions(path: str) -> list[Harvested]:
    """The lesions that a round has left.

    Raises:
        DataError: the file is absent or damaged.
    """
    try:
        return from_table(pq.read_table(path))
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise DataError(path, f"not readable as a round's lesions ({str(error).splitlines()[0][:160]})") from None


def _report(run: Run, volumes: HarvestVolumes, finished: Sequence[dict]) -> None:
    """Table I and Fig. 8 of the rounds so far, in the stage's folder."""
    if not comm.is_main_process():
        return
    folder = run.folder("harvest")
    measured = [json.loads((_folder(run, k + 1) / MEASURES).read_text()) for k in range(len(finished))]
    given = volumes.measure.given()
    rows = [given, *(row for measures in measured for row in measures["rows"])]
    logger.info("recall on %s:\n%s", run.cfg.HARVEST.TEST, format_rows(rows))
    columns = ["round", "labels", *PRECISIONS, "R@100P"]
    write_whole(folder / TABLE[0], pd.DataFrame(rows, columns=columns).to_csv(index=False).encode())
    write_whole(folder / TABLE[1], json.dumps(rows, indent=1).encode())
    rounds = {"P_H,1": measured[0]["curves"]["s_g"]}
    rounds |= {m["rows"][-1]["labels"]: m["curves"]["harvested"] for m in measured}
    scores = {name: measured[-1]["curves"][name] for name in ("s_g", "s_c", "s")}
    panels = {"Round by round": rounds, f"Scores of round {len(measured)}": scores}
    plot_harvest(folder / TABLE[2], panels, given["R@100P"])
