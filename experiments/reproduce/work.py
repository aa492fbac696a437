"""The work of one run, in a process of its own: ``python -m experiments.reproduce.work FOLDER/job.json PARENT``.

PARENT is the number of the process that began it. It does what the job's kind says, in FOLDER, goes on where it
was stopped, and ends by writing the run's record there.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.evaluation import inference_on_dataset
from fvcore.common.registry import Registry
from torch import nn

from benchmarks.registry import machine
from lens_d2.commands import main as run_command
from lens_d2.config import load_config
from lens_d2.data.datasets.catalog import root_of
from lens_d2.data.ledger.counts import count_training_data, strategies_of
from lens_d2.data.ledger.table import read_ledger, to_table, write_ledger
from lens_d2.data.loader import build_test_loader, load_records
from lens_d2.engine.evaluation import INFERENCE, build_evaluator
from lens_d2.engine.stages import DETECTORS, MARKER, MINERS, RunResults, load_model
from lens_d2.evaluation.evaluators import P3DFROCEvaluator
from lens_d2.evaluation.frames import box_truth, mark_truth
from lens_d2.evaluation.readers import read_tracklets
from lens_d2.evaluation.report import write_json
from lens_d2.evaluation.study import METRICS, StudyTruth, concordance
from lens_d2.inference.volume import VolumeInference
from lens_d2.io import cli
from lens_d2.io.errors import DataError
from lens_d2.mining.harvester.results import read_labels
from lens_d2.mining.harvester.volumes import HarvestVolumes
from lens_d2.mining.proposals import mined_datasets

from ..metrics import within
from ..mined import HiddenTruth
from ..runs import timed
from ..verdicts import answered
from .ensemble import Ensemble
from .jobs import RECORD
from .records import read_evaluations
from .tables import words_of

SECONDS = "seconds.json"  # in a run's folder
TIMED_VOLUMES = 3  # sub-volumes on which the inference is timed
KINDS = Registry("KIND")
KINDS.__doc__ = (
    "Functions (job: Job) -> parts of the record, by the kind of a run. To add one, write a function under "
    "``@KINDS.register()``, and say in ``tables._Reader._make`` which key of a row asks for it."
)


@dataclass(frozen=True)
class Job:
    """A run with its seed and cohort, as ``job.json`` has it.

    Attributes:
        run: description of the run.
        seed: of the training.
        device: "cpu" or "cuda".
        folder: of the run.
        given: config key -> {"folder", "file", "strategies", "labels", "verdicts", "value"}.
        members: folders of the runs that are fused or compared.
        facts: more of the record: cohort, commit.
    """

    run: dict
    seed: int
    device: str
    folder: Path
    given: dict[str, dict]
    members: list[Path]
    facts: dict

    @classmethod
    def read(cls, path: Path) -> Job:
        """Read ``job.json``."""
        content = json.loads(path.read_text())
        members = [Path(member) for member in content.pop("members")]
        return cls(folder=path.parent, members=members, **content)

    def opts(self) -> list:
        """Overrides of the config: key, value, ... as words of a command line."""
        opts = {**self.run["opts"], "SEED": self.seed, "OUTPUT_DIR": str(self.folder), "MODEL.DEVICE": self.device}
        opts |= {key: of["value"].format(self._file(key, of)) for key, of in self.given.items()}
        return words_of(opts)

    def _file(self, key: str, of: dict) -> Path:
        """The file of another run, or the part of a ledger that the run is given, written to its own folder."""
        path = Path(of["folder"]) / of["file"]
        if of["strategies"] or of["labels"] or of["verdicts"]:
            rows = part_of_ledger(path, of)
            path = self.folder / f"{key}_{path.name}"
            write_ledger(path, [rows])
        return path


def part_of_ledger(path: Path, of: dict) -> pa.Table:
    """The rows of a ledger that a run is given: of some sets of labels, or strategies, or with verdicts."""
    cfg = load_config(Path(of["folder"]) / "config.yaml")
    if of["labels"]:
        volumes = HarvestVolumes(cfg)
        labels = read_labels(path.parent, {record["volume"] for record in volumes.verified})
        return to_table(labels.rows(volumes.training, of["labels"], cfg.HARVEST.NEGATIVE_SLICES))
    rows = read_ledger(path)
    if of["strategies"]:
        rows = rows[rows["strategy"].isin(of["strategies"])]
    if of["verdicts"]:
        order, number = of["verdicts"]
        (name,) = mined_datasets(cfg)
        rows, _ = answered(rows, load_records((name,)), HiddenTruth(root_of(name)), order, number)
    return to_table(rows)


@KINDS.register()
def training(job: Job) -> dict:
    """Train as ``train_net.py`` does, with all stages of the config."""
    words = ["train", "--config-file", job.run["config"], "--resume", *job.opts()]
    if run_command(words):
        raise DataError(job.folder, "the training failed; the line above says why")
    cfg = load_config(job.folder / "config.yaml")
    content: dict = {"evaluations": read_evaluations(job.folder), "numbers": _training_counts(cfg, job.folder)}
    if (weights := _weights(job.folder)) is not None:
        content["numbers"] |= _measure(cfg, VolumeInference(cfg, load_model(cfg, str(weights))))
    if (table := job.folder / "harvest/table.json").is_file():
        content["harvest"] = json.loads(table.read_text())
    return content


@KINDS.register()
def ensemble(job: Job) -> dict:
    """Evaluate the trained members with their boxes fused."""
    members = []
    for folder in job.members:
        cfg = load_config(folder / "config.yaml", ["MODEL.DEVICE", job.device])
        members.append(VolumeInference(cfg, load_model(cfg, str(_weights(folder)))))
    cfg = load_config(job.run["config"], job.opts())
    model = Ensemble(members, cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST, cfg.TEST.DETECTIONS_PER_IMAGE)
    for name in cfg.DATASETS.TEST:
        inference_on_dataset(model, build_test_loader(cfg, name), build_evaluator(cfg, name))
    return {"evaluations": read_evaluations(job.folder), "numbers": _measure(cfg, model)}


@KINDS.register()
def study(job: Job) -> dict:
    """Compare metrics over the members' detections (Lesion-Harvester, Section IV-B)."""
    marks, original, boxes = (f"phantom_deeplesion_{name}" for name in ("vd_test", "test", "vd3d_test"))
    evaluator = P3DFROCEvaluator(marks)
    records = DatasetCatalog.get(boxes)
    names = {record["volume"] for record in records}
    boxes3d = box_truth(records, evaluator.frame)
    truth = StudyTruth(
        boxes3d,
        within(marks, evaluator.truth(DatasetCatalog.get(marks)), boxes3d.volumes),
        within(original, mark_truth(DatasetCatalog.get(original), evaluator.frame), boxes3d.volumes),
    )
    recalls = {}
    for number, folder in enumerate(job.members):
        content = json.loads(_predictions(folder, marks).read_text())
        found = {name: own for name, own in content.items() if name in names}
        write_json(job.folder / f"predictions_{number}.json", found, indent=None)
        tracklets = read_tracklets(job.folder / f"predictions_{number}.json", boxes3d, marks)
        recalls[str(number)] = {metric: of(truth, tracklets) for metric, of in METRICS.items()}
    found = {f"pearson of {metric}": value for metric, value in concordance(recalls).items()}
    return {"evaluations": {}, "numbers": {key: value for key, value in found.items() if value is not None}}


@KINDS.register()
def ledger(job: Job) -> dict:
    """Measure what other methods have mined as the labels of a harvest are (Lesion-Harvester, Table I)."""
    cfg = load_config(job.run["config"], job.opts())
    measure = HarvestVolumes(cfg).measure
    rows = [measure.of_ledger(name, read_ledger(path))[0] for name, path in cfg.HARVEST.OTHER_LEDGERS]
    return {"evaluations": {}, "numbers": {}, "harvest": rows}


def _predictions(folder: Path, dataset: str) -> Path:
    """The predictions of a run's newest detector on a dataset.

    Raises:
        DataError: it was not evaluated there.
    """
    for stage in ("evaluate", *reversed(DETECTORS), ""):
        path = folder / stage / INFERENCE / dataset / "predictions.json"
        if path.is_file():
            return path
    raise DataError(folder, f"no detector was evaluated on {dataset}")


def _weights(folder: Path) -> Path | None:
    """The final weights of a run's newest detector; None if it is not evaluated as one."""
    for stage in reversed(DETECTORS):
        done = RunResults(folder / stage, str(folder)).find(MARKER)
        if done and "weights" in done["result"]:
            return Path(done["result"]["weights"])
    alone = folder / "model_final.pth"
    return alone if alone.is_file() else None


def _ledger(cfg: CfgNode, folder: Path) -> str:
    """The ledger of a run's last training: the config's, or what its own stages have mined; empty without one."""
    if cfg.DATASETS.LEDGER or "retrain" not in cfg.STAGES:
        return cfg.DATASETS.LEDGER
    mined = (RunResults(folder / stage, str(folder)).find(MARKER) for stage in reversed(MINERS))
    return next(done["result"]["ledger"] for done in mined if done)


def _training_counts(cfg: CfgNode, folder: Path) -> dict[str, int]:
    """Counts of LENS's Table III, of the partially labelled datasets: lesions, boxes, uncertain boxes, slices."""
    try:
        names = mined_datasets(cfg)
    except DataError:
        return {}
    path = _ledger(cfg, folder)
    ledger = read_ledger(path) if path else to_table([]).to_pandas()
    *mined, unlabelled = count_training_data(load_records(names), ledger, strategies_of(ledger))
    counts = unlabelled if cfg.DATASETS.UNLABELED_SLICES else mined[-1]
    return {key: getattr(counts, key) for key in ("lesions", "boxes", "uncertain", "slices")}


def _measure(cfg: CfgNode, inference: nn.Module) -> dict[str, float]:
    """Parameters and the time of a slice, "ms_per_slice", of inference over the first sub-volumes of the test."""
    numbers: dict[str, float] = {"parameters": sum(weights.numel() for weights in inference.parameters())}
    records = load_records(cfg.DATASETS.TEST[:1])[:TIMED_VOLUMES] if cfg.DATASETS.TEST else []
    if records:
        on_gpu = torch.device(cfg.MODEL.DEVICE).type == "cuda"
        clock = time.perf_counter if on_gpu else time.process_time  # this hardly feels other programs
        first = inference.members[0] if isinstance(inference, Ensemble) else inference
        inference.eval()(records[:1])
        began = clock()
        inference(records)
        seconds = clock() - began
        slices = sum(len(first.slice_positions(first.cache.open(record))) for record in records)
        numbers["ms_per_slice"] = round(1000 * seconds / slices, 3)
    return numbers


def end_with(parent: int) -> None:
    """Ask this process to end, as SIGTERM does, once its parent is gone: a killed command leaves no run behind."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def work(path: Path) -> None:
    """Do a job and write its record.

    Raises:
        DataError: the run cannot be made.
    """
    job = Job.read(path)
    with timed(job.folder / SECONDS):
        content = KINDS.get(job.run["kind"])(job)
    seconds = json.loads((job.folder / SECONDS).read_text())
    facts = {"machine": machine(), "device": job.device, "seconds": seconds}
    if job.device == "cuda":
        facts["gpu"] = torch.cuda.get_device_name()
    record = {"run": job.run, "seed": job.seed, **job.facts, **facts, **content}
    write_json(job.folder / RECORD, record, indent=None)


if __name__ == "__main__":
    end_with(int(sys.argv[2]))
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    sys.exit(cli.run(lambda: work(Path(sys.argv[1]))))
