"""The stage "harvest": rounds of Lesion-Harvester, each complete or absent.

A round has its folder ``harvest/round_<k>`` below ``OUTPUT_DIR``. What it leaves, in this order:

    generator/       the proposal generator, trained or fine-tuned: model_final.pth
    proposals/       its raw proposals on the slices of all sub-volumes, a file each
    lpc/             the classifier: model_final.pth; fold_<i>/ those that judge a part of V_M
    scored/          the 3D proposals with both scores, a file for each sub-volume
    ledger.parquet, ledger.csv, lesions.parquet, negatives.parquet, harvested.pkl, recovered.pkl,
    hard_negatives.pkl, measures.json
    round.json       the round is finished
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

from detectron2.config import CfgNode
from detectron2.utils import comm

from ..mining.harvester.pool import HarvestedLesion
from ..mining.harvester.proposals import GROUP, Proposals, score_proposals_3d, stack_proposals
from ..mining.harvester.results import finish_round, read_pool, write_table
from ..mining.harvester.rounds import Rules, known_proposals
from ..mining.harvester.volumes import HarvestVolumes, check_settings
from ..mining.proposals import open_shards, propose
from .classifier import train_lpc
from .stages import COMPLETE, DETECTOR_ALONE, ROUND, STAGES, TRAINED, Run, load_model, seed_round, train_model

logger = logging.getLogger(__name__)

FOLDER = "harvest"  # of the stage


@STAGES.register()
def harvest(run: Run) -> dict:
    """Lesion-Harvester: generate, classify, harvest, fine-tune, until the labels get no more complete."""
    cfg, finished, folders = run.cfg, [], []
    volumes = HarvestVolumes(cfg)
    check_settings(cfg, volumes)
    for number in range(1, cfg.HARVEST.ROUNDS + 1):
        current = HarvestRound(run, volumes, number, tuple(finished))
        finished.append(run.results(current.step).once(ROUND, current.run))
        folders.append(current.folder)
        if comm.is_main_process():
            write_table(run.folder(FOLDER), volumes.measure, folders, cfg.HARVEST.OTHER_LEDGERS)
        if cfg.HARVEST.STOP_EARLY and _has_converged(finished):
            logger.info("the mean recall no longer rises: round %d is the last", number)
            break
    best = max(finished, key=lambda result: result["mean"])  # the first of the best
    return {**best, "rounds": finished}


def _has_converged(rounds: Sequence[dict]) -> bool:
    """Whether the last round's labels are no more complete than those of the round before."""
    return len(rounds) > 1 and rounds[-1]["mean"] <= rounds[-2]["mean"]


def _is_complete(cfg: CfgNode, result: dict) -> bool:
    """Whether no further round is asked for; a radiologist may judge the ledger and then ask for one."""
    if len(result["rounds"]) >= cfg.HARVEST.ROUNDS:
        return True
    if cfg.HARVEST.STOP_EARLY and _has_converged(result["rounds"]):
        logger.warning("harvest: no further round, as the mean recall no longer rose in the last one")
        return True
    return False


COMPLETE[harvest.__name__] = _is_complete


class HarvestRound:
    """One round; :meth:`run` resumes from the last finished unit of work."""

    def __init__(self, of_run: Run, volumes: HarvestVolumes, number: int, finished: Sequence[dict]):
        """
        Args:
            of_run: the run that the round belongs to.
            volumes: of the harvest.
            number: of the round, from 1.
            finished: what the rounds before have returned.
        """
        self.of_run, self.cfg, self.keys = of_run, of_run.cfg, of_run.cfg.HARVEST
        self.volumes, self.number = volumes, number
        self.finished, self.last = finished, finished[-1] if finished else None
        self.step = f"{FOLDER}/round_{number}"
        self.folder = of_run.folder(self.step)
        self.folds = volumes.folds(self.keys.FOLDS)
        self.known: tuple[dict, dict] | None = None  # of known_proposals, once a classifier is trained

    def run(self) -> dict | None:
        """Generate, classify and harvest.

        Returns:
            what later rounds and stages use, on the first rank.
        """
        given = (self.keys.WEIGHTS, self.cfg.MODEL.LPC.WEIGHTS) if self.number == 1 else ("", "")
        weights = given[0] or self._once("generator", self._train_generator)
        shards = open_shards(self.cfg, load_model(self.cfg, weights), self.folder / "proposals")
        propose(self.volumes.all, shards)
        before, stacked = read_pool(self.finished), stack_proposals(self.cfg, shards)
        train = partial(self._train_classifier, stacked, before)
        classifiers = [given[1] or self._once("lpc", train)]
        classifiers += [self._once(f"fold_{i}", partial(train, i)) for i in range(self.keys.FOLDS)]
        scored = score_proposals_3d(self.cfg, shards, classifiers, self.folds, self.folder / "scored")
        propose(self.volumes.all, scored)
        if not comm.is_main_process():
            return None
        result = finish_round(
            self.cfg, self.volumes, lambda record: scored.read(record)[GROUP], before, self.number, self.folder
        )
        return {"round": self.number, "weights": weights, "classifiers": classifiers, **result}

    def _once(self, step: str, train: Callable[[], str]) -> str:
        """Train unless that is already finished, and give the weights."""
        return self.of_run.results(f"{self.step}/{step}").once(TRAINED, lambda: {"weights": train()})["weights"]

    def _train_generator(self) -> str:
        """Step 1: on the given marks; from the second round on fine-tuned, with what has been harvested."""
        opts = ["DATASETS.TEST", (), "MINING.STRATEGIES", (), *DETECTOR_ALONE]
        if self.last:
            for key, value in self.keys.FINETUNE.items():
                opts += [f"SOLVER.{key}", value]
            opts += ["MODEL.WEIGHTS", self.last["weights"], "DATASETS.LEDGER", self.last["ledger"]]
        else:
            opts += ["DATASETS.LEDGER", ""]
        seed_round(self.cfg, self.number)
        return train_model(self.of_run.config(f"{self.step}/generator", *opts), self.of_run.resume)["weights"]

    def _train_classifier(
        self, stacked: Proposals, before: Sequence[HarvestedLesion], fold: int | None = None
    ) -> str:
        """Step 3: on P_H^R and P_M^R against P_M^-, without the patients of one fold of V_M if that is given.

        From the second round on, it is fine-tuned from the last round's classifier, which has not seen the fold
        either; if the number of folds has changed since, a fold's classifier is trained anew.
        """
        if self.known is None:
            rules = Rules.from_config(self.cfg)
            self.known = known_proposals(self.volumes.training, stacked, rules, before)
        apart = {
            r["patient"] for r in self.volumes.verified if fold is not None and fold == self.folds[r["volume"]]
        }
        verified = [r for r in self.volumes.verified if r["patient"] not in apart]
        records = [*verified, *(r for r in self.volumes.partial if r["patient"] not in apart)]
        positives = {record["volume"]: self.known[0][record["volume"]] for record in records}
        negatives = {record["volume"]: self.known[1][record["volume"]] for record in verified}
        cfg, start = self.cfg.clone(), ""
        cfg.defrost()
        before_it = self.last["classifiers"] if self.last and self.keys.FINETUNE_CLASSIFIER else []
        if before_it and (fold is None or len(before_it) == 1 + self.keys.FOLDS):
            start = before_it[0 if fold is None else 1 + fold]
            cfg.MODEL.LPC.SOLVER.update(self.keys.FINETUNE_LPC)
        cfg.OUTPUT_DIR = str(self.folder if fold is None else self.folder / f"fold_{fold}")
        cfg.freeze()
        return train_lpc(cfg, records, positives, negatives, self.of_run.resume, start)
