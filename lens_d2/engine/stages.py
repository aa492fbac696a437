"""Steps of a whole run, each complete or absent (LENS, Section III).

``STAGES`` in the config names them in order. A stage works in its own folder below ``OUTPUT_DIR`` and leaves
``stage.json`` there when it is finished. With ``--resume``, a run that was killed continues from the last finished
unit of work: a stage, and within it a checkpoint, a sub-volume's proposals, a patient's mining.

    embedding   the lesion embedding, unless the config gives one
    train       LENS on the given annotations; at its end, by the hooks of lens_d2.mining, proposals and mining
    mine        proposals and mining with the detector MODEL.WEIGHTS, in place of "train"
    self_training   further rounds: LENS anew with the last ledger, proposals and mining with it
    retrain     LENS anew, with the ledger's missing annotations, uncertain regions, and unlabelled slices
    harvest     Lesion-Harvester's rounds (lens_d2.engine.harvest), in place of "train"
    fpr         proposals of the newest LENS, and the classifier of false-positive reduction on them
    evaluate    the newest LENS with the classifier, on DATASETS.TEST

To add a stage, write a function as below under ``@STAGES.register()``, and enter it in ``ORDER`` and, if it needs
the result of another stage or a setting, in ``NEEDS`` and ``SETTINGS``.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.evaluation import verify_results
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from fvcore.common.registry import Registry
from tabulate import tabulate
from torch import nn

from ..data.cache import build_cache
from ..data.ledger.table import LEDGER, LEDGER_CSV
from ..data.ledger.verdicts import judged_rows, refuse_to_lose_verdicts
from ..data.loader import load_records, load_training_records
from ..evaluation.evaluators import summaries
from ..io.artifacts import ResultStore
from ..io.checkpoint import LAST_CHECKPOINT, LENSCheckpointer
from ..io.errors import DataError
from ..io.files import write_whole
from ..mining.lens.mine import MINING, MiningRound
from ..mining.proposals import PROPOSALS, LazyProposals, mined_datasets, open_shards, propose
from .classifier import train_fpr
from .embedding import train_embedding
from .trainer import LENSTrainer

logger = logging.getLogger(__name__)

# Results in the folder of a stage, of a round of one, and of a training in a round.
MARKER, ROUND, TRAINED = "stage", "round", "trained"
AVERAGE = "average_sensitivity"
# Stages in the order in which they run, one of each group at most.
ORDER = (("embedding",), ("train", "mine", "harvest"), ("self_training",), ("retrain",), ("fpr",), ("evaluate",))
MINERS = (*ORDER[1], *ORDER[2])  # stages that leave a ledger
DETECTORS = (*MINERS, *ORDER[3])  # and a detector
PLACES = {name: number for number, group in enumerate(ORDER) for name in group}
# Stages that need the result of one of others.
NEEDS = {"self_training": ORDER[1][:2], "retrain": MINERS, "fpr": DETECTORS, "evaluate": DETECTORS}
# Settings that a stage needs.
SETTINGS = {
    "mine": ("MODEL.WEIGHTS", "MINING.STRATEGIES"),
    "self_training": ("MINING.STRATEGIES",),
    "evaluate": ("DATASETS.TEST",),
}
# Overrides of the training of a detector before the end of a run.
DETECTOR_ALONE = ("MODEL.FPR.WEIGHTS", "", "TEST.EXPECTED_RESULTS", [])
STAGES = Registry("STAGE")
STAGES.__doc__ = "Functions (run: Run) -> dict of JSON's types: the result, for later stages and stage.json."
# Predicates by stage: does a finished stage's result still satisfy the config?
COMPLETE: dict[str, Callable[[CfgNode, dict], bool]] = {}


HERE = "{OUTPUT_DIR}"  # in the files of results, in place of the run's folder


class RunResults(ResultStore):
    """Results of a run whose folder may be moved: paths below it are written relative to it.

    They have no digest of what they were made from: a config may change between a run and its resumption, and what
    is finished stays.
    """

    def __init__(self, folder: Path, output_dir: str):
        """
        Args:
            folder: of a stage, or of a step of one.
            output_dir: the run's folder.
        """
        super().__init__(folder)
        self.output_dir = str(Path(output_dir))

    def dump(self, value: dict, header: dict[str, str]) -> bytes:
        """The content of the file."""
        value = _with_texts(value, partial(_replace_folder, self.output_dir, HERE))
        return super().dump(value, header=header)

    def load(self, path: Path) -> tuple[dict, dict[str, str]]:
        """The value in a file, and its header."""
        value, header = super().load(path)
        return _with_texts(value, partial(_replace_folder, HERE, self.output_dir)), header


def _replace_folder(before: str, after: str, text: str) -> str:
    """A path with another folder at its beginning; other texts stay."""
    path = os.path.normpath(text)  # "./output/fpr" is below "output"
    return f"{after}{path[len(before) :]}" if path.startswith(f"{before}{os.sep}") else text


def _with_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Copy a JSON value with each of its texts changed."""
    if isinstance(value, dict):
        return {key: _with_texts(own, change) for key, own in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_texts(own, change) for own in value]
    return change(value) if isinstance(value, str) else value


@dataclass
class Run:
    """A run of stages.

    Attributes:
        cfg: of the whole run.
        resume: whether results and checkpoints of an earlier run are used.
        done: results of the finished stages, by name.
    """

    cfg: CfgNode
    resume: bool = False
    done: dict[str, dict] = field(default_factory=dict)

    def folder(self, stage: str) -> Path:
        """The folder that a stage works in."""
        return Path(self.cfg.OUTPUT_DIR) / stage

    def results(self, step: str) -> RunResults:
        """The results in the folder of a stage or of a step of one."""
        return RunResults(self.folder(step), self.cfg.OUTPUT_DIR)

    def config(self, stage: str, *opts) -> CfgNode:
        """The config of one stage: its own folder, ``opts`` (key, value, ...) merged."""
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.merge_from_list(["OUTPUT_DIR", str(self.folder(stage)), *opts])
        cfg.freeze()
        if comm.is_main_process():
            write_whole(self.folder(stage) / "config.yaml", cfg.dump().encode())
        return cfg

    def newest(self, key: str, *stages: str, default: str | None = None) -> str:
        """The value under ``key`` in the result of the last of these stages that is done.

        Args:
            key: of a result.
            stages: in the order in which they run.
            default: returned if none of them is done.

        Raises:
            DataError: none of them is done, and there is no default.
        """
        for stage in reversed(stages):
            if key in self.done.get(stage, {}):
                return self.done[stage][key]
        if default is not None:
            return default
        raise DataError(
            self.cfg.OUTPUT_DIR, f"no {key} here: one of the stages {', '.join(stages)} has to run first"
        )


def run_stages(cfg: CfgNode, resume: bool = False) -> dict:
    """Run the stages that the config names, one after another.

    Args:
        cfg: of the whole run.
        resume: skip finished stages, and continue the one that was interrupted.

    Returns:
        the result of each stage, by name.

    Raises:
        DataError: a stage lacks one before it; or one that begins anew would replace a ledger with a radiologist's
            verdicts; or a stage meets a fault.
    """
    run = Run(cfg, resume)
    first = min((PLACES[name] for name in cfg.STAGES if name in PLACES), default=0)
    for path in sorted(Path(cfg.OUTPUT_DIR).glob(f"*/{MARKER}.json")):
        name = path.parent.name
        # A stage of this config counts when resuming, another one if its place is before them.
        counts = resume if name in cfg.STAGES else PLACES.get(name, -1) < first
        if counts:
            _recall(run, name)
    _check_needs(run)
    if comm.is_main_process() and not resume:
        keep_verdicts(cfg, [run.folder(name) for name in cfg.STAGES if name in MINERS])
    for number, name in enumerate(cfg.STAGES):
        if name in run.done:
            logger.info("stage %s: complete", name)
            continue
        comm.synchronize()
        if comm.is_main_process():
            for later in cfg.STAGES[number:]:
                _forget(run, later, checkpoints=later != name or not resume)
        for later in cfg.STAGES[number + 1 :]:
            run.done.pop(later, None)
        comm.synchronize()
        _run_stage(run, name)
    return run.done


def _check_needs(run: Run) -> None:
    """Refuse stages without one that they need, before them or finished in ``OUTPUT_DIR``."""
    there = {*run.done}
    for name in run.cfg.STAGES:
        needed = () if name == "retrain" and run.cfg.DATASETS.LEDGER else NEEDS.get(name, ())
        if needed and not there & {*needed}:
            fault = f"{name} cannot run: one of the stages {', '.join(needed)} has to run first"
            raise DataError(run.cfg.OUTPUT_DIR, fault)
        there.add(name)


def keep_verdicts(cfg: CfgNode, folders: Iterable[Path]) -> None:
    """Refuse to mine anew into folders whose ledgers have verdicts that no reviewed ledger has.

    Args:
        cfg: of the mining.
        folders: in and below which the ledgers are.

    Raises:
        DataError: names the ledger, and how many verdicts would be lost.
    """
    paths = [path for folder in folders for name in (LEDGER, LEDGER_CSV) for path in sorted(folder.rglob(name))]
    if not paths:
        return
    names = dict.fromkeys((*cfg.DATASETS.TRAIN, *cfg.MINING.DATASETS))
    records = load_records(names, build_cache(cfg))
    judged = judged_rows(cfg.MINING.REVIEWED, records)
    for path in paths:
        refuse_to_lose_verdicts(path, records, judged)


def _recall(run: Run, name: str) -> None:
    """Take over the result of a finished stage, unless its marker is damaged or it has more to do."""
    result = (run.results(name).find(MARKER) or {}).get("result")
    if result is not None and (name not in run.cfg.STAGES or COMPLETE.get(name, lambda *_: True)(run.cfg, result)):
        run.done[name] = result


def _forget(run: Run, name: str, checkpoints: bool) -> None:
    """Make a stage unfinished, and with ``checkpoints`` not begun: nothing resumes from them."""
    run.results(name).forget(MARKER)
    for begun in (LAST_CHECKPOINT, f"{ROUND}.json", f"{TRAINED}.json") if checkpoints else ():
        for path in run.folder(name).rglob(begun):
            path.unlink()


def _run_stage(run: Run, name: str) -> None:
    logger.info("stage %s: begins, in %s", name, run.folder(name))
    if run.cfg.SEED >= 0:  # the same, whether the stages before it ran in this process or not
        seed_all_rng(run.cfg.SEED + comm.get_rank())
    start = time.monotonic()

    def work() -> dict:
        result = STAGES.get(name)(run)
        return {"stage": name, "seconds": round(time.monotonic() - start, 1), "result": result}

    run.done[name] = run.results(name).once(MARKER, work)["result"]
    logger.info("stage %s: done in %.0f s", name, time.monotonic() - start)


@STAGES.register()
def embedding(run: Run) -> dict:
    """Provide the embedding for intra-patient matching: MODEL.EMBEDDING.WEIGHTS, or a network trained here."""
    return {"weights": run.cfg.MODEL.EMBEDDING.WEIGHTS or train_embedding(run.cfg, resume=run.resume)}


@STAGES.register()
def train(run: Run) -> dict:
    """Steps 1 to 3: train LENS on the given annotations; propose and mine if MINING.STRATEGIES names any."""
    opts = ["DATASETS.LEDGER", "", "DATASETS.UNLABELED_SLICES", False]
    cfg = run.config("train", *opts, *_mining_opts(run))
    result = train_model(cfg, run.resume)
    if cfg.MINING.STRATEGIES:
        result["ledger"] = str(Path(cfg.OUTPUT_DIR) / MINING / LEDGER)
    return result


def _mining_opts(run: Run) -> list:
    """Overrides of a training that mines."""
    weights = run.cfg.MODEL.EMBEDDING.WEIGHTS or run.done.get("embedding", {}).get("weights", "")
    return ["MODEL.EMBEDDING.WEIGHTS", weights, *DETECTOR_ALONE]


@STAGES.register()
def mine(run: Run) -> dict:
    """Steps 2 and 3 with a detector that has been trained before: propose and mine with MODEL.WEIGHTS."""
    cfg = run.config("mine", *_mining_opts(run))
    mining = MiningRound(cfg)
    ledger = mining.mine(mining.propose(load_model(cfg, cfg.MODEL.WEIGHTS)))
    return {"weights": cfg.MODEL.WEIGHTS, "ledger": str(ledger)}


@STAGES.register()
def self_training(run: Run) -> dict:
    """Rounds of mining after the first, up to MINING.ROUNDS: each learns from the ledger of the one before.

    A round has its folder ``self_training/round_<k>`` with ``model_final.pth``, ``proposals/`` and ``mining/``. A
    radiologist's verdicts in the ledgers of earlier rounds hold in later ones.
    """
    ledgers, rounds = [run.newest("ledger", "train", "mine")], []
    for number in range(2, run.cfg.MINING.ROUNDS + 1):
        step = f"{self_training.__name__}/round_{number}"
        rounds.append(run.results(step).once(ROUND, partial(_mining_round, run, step, number, ledgers)))
        ledgers.append(rounds[-1]["ledger"])
    return {**(rounds[-1] if rounds else {}), "rounds": rounds}


COMPLETE[self_training.__name__] = lambda cfg, result: len(result["rounds"]) >= cfg.MINING.ROUNDS - 1


def _mining_round(run: Run, step: str, number: int, ledgers: Sequence[str]) -> dict:
    """Train anew with the last of the earlier rounds' ledgers, propose and mine."""
    reviewed = (*run.cfg.MINING.REVIEWED, *ledgers)
    cfg = run.config(step, "DATASETS.LEDGER", ledgers[-1], "MINING.REVIEWED", reviewed, *_mining_opts(run))
    mining = MiningRound(cfg)
    training = cfg.clone()
    training.defrost()
    training.MINING.STRATEGIES = ()
    seed_round(cfg, number)
    result = train_model(training, run.resume)
    ledger = mining.mine(mining.propose(load_model(cfg, result["weights"])), number)
    return {"round": number, **result, "ledger": str(ledger)}


def seed_round(cfg: CfgNode, number: int) -> None:
    """Seed a rank for a round, so that it is the same whether what came before ran in this process or not."""
    if cfg.SEED >= 0:
        seed_all_rng(cfg.SEED + 1000 * number + comm.get_rank())


@STAGES.register()
def retrain(run: Run) -> dict:
    """Step 4: train LENS anew with the ledger: DATASETS.LEDGER, or the one that was mined."""
    ledger = run.cfg.DATASETS.LEDGER or run.newest("ledger", *MINERS)
    opts = ["DATASETS.LEDGER", ledger, "MINING.STRATEGIES", ()]
    return train_model(run.config("retrain", *opts, *DETECTOR_ALONE), run.resume)


def train_model(cfg: CfgNode, resume: bool) -> dict:
    """Train a detector, with ``resume`` from the last checkpoint.

    Returns:
        "weights", the file of the final ones, and "metrics" of the last evaluation.
    """
    trainer = LENSTrainer(cfg)
    trainer.resume_or_load(resume)
    trainer.train()
    return {
        "weights": str(Path(cfg.OUTPUT_DIR) / "model_final.pth"),
        "metrics": getattr(trainer, "_last_eval_results", None) or {},
    }


@STAGES.register()
def fpr(run: Run) -> dict:
    """Step 5: train the classifier on the true and false positives of the newest LENS in the mined datasets."""
    ledger = run.cfg.DATASETS.LEDGER or run.newest("ledger", *MINERS, default="")
    cfg = run.config("fpr", "DATASETS.LEDGER", ledger)
    records = load_training_records(cfg, mined_datasets(cfg))
    shards = open_shards(cfg, load_model(cfg, run.newest("weights", *DETECTORS)), run.folder("fpr") / PROPOSALS)
    propose(records, shards)
    proposals = LazyProposals(records, shards, cfg.MODEL.LENS.OUTPUT)  # those that the classifier will rescore
    return {"weights": train_fpr(run.cfg, records, proposals, run.resume)}


@STAGES.register()
def evaluate(run: Run) -> dict:
    """Evaluate the newest LENS with the classifier, beside the figures after each training."""
    weights = run.newest("weights", *DETECTORS)
    given = run.cfg.MODEL.FPR.WEIGHTS
    classifier = given if given and "fpr" not in run.cfg.STAGES else run.done.get("fpr", {}).get("weights", "")
    cfg = run.config("evaluate", "MODEL.FPR.WEIGHTS", classifier)
    metrics = LENSTrainer.test(cfg, load_model(cfg, weights)) or {}
    if comm.is_main_process():
        verify_results(cfg, metrics)
        stages = {name: run.done[name]["metrics"] for name in DETECTORS if "metrics" in run.done.get(name, {})}
        logger.info("average sensitivity after each stage:\n%s", compare({**stages, "evaluate": metrics}))
    return {"weights": weights, "classifier": classifier, "metrics": metrics}


def compare(metrics: dict[str, dict]) -> str:
    """A table of average sensitivities, a row for each of the named results of an evaluation."""
    averages = {name: summaries(results, AVERAGE) for name, results in metrics.items()}
    wanted = list(list(averages.values())[-1])
    rows = [[name, *(values.get(key, float("nan")) for key in wanted)] for name, values in averages.items()]
    return tabulate(rows, ["", *wanted], tablefmt="pipe", floatfmt=".4f")


def load_model(cfg: CfgNode, weights: str) -> nn.Module:
    """A trained detector in evaluation mode."""
    model = LENSTrainer.build_model(cfg)
    LENSCheckpointer(model, whole=True).load(weights)
    return model.eval()
