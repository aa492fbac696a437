"""Checks of a run's settings together, before anything is read, trained or written; see also :mod:`.allowed`."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from torch import nn

from ..data.datasets.catalog import partially_labelled
from ..data.loader import dataset_numbers, load_training_records
from ..io.checkpoint import LAST_CHECKPOINT, load_weights
from ..io.config_files import value_of
from ..io.errors import DataError, did_you_mean
from ..mining.proposals import mined_datasets
from ..modeling.backbone import SLICES_PER_IMAGE
from ..modeling.classifiers import build_classifier
from ..modeling.embedding import LesaNet
from ..structures.detections import FUSED
from .allowed import BUILT_IN, FILES, TRAININGS, check_files, check_numbers
from .stages import PLACES, SETTINGS

HU_WINDOWS = ("INPUT.HU_WINDOW", *(f"MODEL.{network}.HU_WINDOW" for network in ("FPR", "LPC", "EMBEDDING")))
SEEDS = 2**31  # seeds are below it; ranks and rounds derive others from them
STEPS_MM, SCALES, LEAST_SIDE = (0.1, 50.0), (0.1, 10.0), 32  # of pixels and slices; at inference; pixels


def check_input(cfg: CfgNode) -> None:
    """Refuse settings of ``INPUT`` and ``TEST`` with which no scan can be processed.

    Raises:
        DataError: names the key, its value and what is allowed.
    """
    slices, scales = cfg.INPUT.NUM_SLICES, tuple(cfg.TEST.SCALES)
    for key in HU_WINDOWS:
        window = tuple(value_of(cfg, key))
        if len(window) != 2 or not window[0] < window[1]:
            raise DataError(key, f"{window}; two rising HU are needed, such as (-1024.0, 3071.0)")
    if slices % SLICES_PER_IMAGE or slices // SLICES_PER_IMAGE % 2 == 0:
        raise DataError("INPUT.NUM_SLICES", f"{slices}; 3, 9, 15, ... are allowed")
    for key in ("INPUT.PIXEL_SPACING", "INPUT.SLICE_INTERVAL"):
        if not STEPS_MM[0] <= value_of(cfg, key) <= STEPS_MM[1]:
            raise DataError(key, f"{value_of(cfg, key)}; {STEPS_MM[0]:g} to {STEPS_MM[1]:g} mm are allowed")
    if not scales or not all(SCALES[0] <= scale <= SCALES[1] for scale in scales):
        fault = f"{scales}; factors of {SCALES[0]:g} to {SCALES[1]:g} are needed, such as (1.0, 1.25)"
        raise DataError("TEST.SCALES", fault)
    if len(scales) > 1 and cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST >= 1:
        fault = f"{cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST}, no NMS, and TEST.SCALES {scales} need one, such as 0.5"
        raise DataError("MODEL.ROI_HEADS.NMS_THRESH_TEST", f"{fault}: each lesion would be found once a scale")
    if cfg.SEED >= SEEDS:
        raise DataError("SEED", f"{cfg.SEED}; numbers below {SEEDS} are needed")
    if cfg.TEST.SLICES_PER_BATCH < 1:
        raise DataError("TEST.SLICES_PER_BATCH", f"{cfg.TEST.SLICES_PER_BATCH}; at least 1 is needed")
    tracker = cfg.TEST.TRACKER
    for key in ("IOU", "FUSE_IOU"):
        if not 0 < tracker[key] <= 1:
            raise DataError(f"TEST.TRACKER.{key}", f"{tracker[key]}; a number above 0, of at most 1, is needed")
    if len(tracker.NOISE) != 3 or not all(value > 0 for value in tracker.NOISE):
        raise DataError("TEST.TRACKER.NOISE", f"{tuple(tracker.NOISE)}; 3 numbers above 0 are needed")
    if cfg.INPUT.MAX_SIZE < LEAST_SIDE:
        raise DataError("INPUT.MAX_SIZE", f"{cfg.INPUT.MAX_SIZE}; at least {LEAST_SIDE} pixels are needed")
    std = tuple(cfg.MODEL.PIXEL_STD)
    if len(cfg.MODEL.PIXEL_MEAN) != len(std) or not all(value > 0 for value in std):
        raise DataError("MODEL.PIXEL_STD", f"{std}; a number above 0 for each of MODEL.PIXEL_MEAN is needed")
    experts = tuple(cfg.MODEL.LENS.EXPERTS)
    if len({*experts, FUSED}) <= len(experts):
        fault = f"{experts}; name each expert once, and none {FUSED!r}, which is their common output"
        raise DataError("MODEL.LENS.EXPERTS", fault)
    for expert in experts:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", expert) or hasattr(nn.ModuleDict, expert):
            fault = f"{expert!r}; letters, digits, _ and - make up a name, and some words are torch's own"
            raise DataError("MODEL.LENS.EXPERTS", fault)
    if cfg.TEST.AUG.ENABLED:
        raise DataError("TEST.AUG.ENABLED", "True, but it is TEST.SCALES that augments at test time here")


def check_training(cfg: CfgNode, ranks: int = 1) -> None:
    """Refuse settings with which a training would fail, or never save, on the given ranks.

    Args:
        cfg: ``SOLVER`` as written, not scaled to the ranks.
        ranks: number of ranks that will train.

    Raises:
        DataError: names the key, its value and what is allowed.
    """
    solver = cfg.SOLVER
    written_for = solver.REFERENCE_WORLD_SIZE
    if not cfg.DATASETS.TRAIN:
        raise DataError("DATASETS.TRAIN", "names no dataset to train on")
    for key, most in (("SHARES", 1.0), ("WEIGHTS", float("inf"))):
        for name in dataset_numbers(cfg, key, most):
            if name not in cfg.DATASETS.TRAIN:
                hint = did_you_mean(name, cfg.DATASETS.TRAIN)
                raise DataError(f"DATASETS.{key}", f"no {name!r} in DATASETS.TRAIN{hint}")
    if cfg.DATASETS.COMBINE == "experts" and cfg.MODEL.LENS.EXPERTS:
        for name in cfg.DATASETS.TRAIN:
            expert = MetadataCatalog.get(name).get("expert")
            if expert not in cfg.MODEL.LENS.EXPERTS:
                hint = f"{tuple(cfg.MODEL.LENS.EXPERTS)}, and DATASETS.TRAIN has {name}, of the expert {expert}"
                raise DataError("MODEL.LENS.EXPERTS", f"{hint}: name it, or leave the dataset out")
    if solver.AMP.ENABLED and (torch.device(cfg.MODEL.DEVICE).type == "cpu" or not torch.cuda.is_available()):
        fault = "True, and the training is on the CPU: mixed precision is for GPUs; set it to False"
        raise DataError("SOLVER.AMP.ENABLED", fault)
    if cfg.WANDB.PROJECT and find_spec("wandb") is None:
        fault = (
            f"{cfg.WANDB.PROJECT!r}, and the package wandb is not installed: install it, or leave the key empty"
        )
        raise DataError("WANDB.PROJECT", fault)
    if solver.PARTS and not cfg.MODEL.WEIGHTS:
        fault = f"empty, but SOLVER.PARTS trains only {tuple(solver.PARTS)}: give the weights of a detector"
        raise DataError("MODEL.WEIGHTS", fault)
    check_numbers(cfg)
    scale = tuple(cfg.INPUT.SCALE_RANGE)
    if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
        raise DataError("INPUT.SCALE_RANGE", f"{scale}; two rising factors above 0 are needed, such as (0.8, 1.2)")
    if cfg.INPUT.CROP.ENABLED and (len(cfg.INPUT.CROP.SIZE) != 2 or min(cfg.INPUT.CROP.SIZE) <= 0):
        raise DataError("INPUT.CROP.SIZE", f"{tuple(cfg.INPUT.CROP.SIZE)}; two numbers above 0 are needed")
    if written_for and solver.IMS_PER_BATCH % written_for:
        fault = f"{written_for} ranks cannot share a batch of {solver.IMS_PER_BATCH} (SOLVER.IMS_PER_BATCH)"
        raise DataError("SOLVER.REFERENCE_WORLD_SIZE", f"{fault}: give a divisor of it, or 0 for no scaling")
    batch = solver.IMS_PER_BATCH * ranks // written_for if written_for else solver.IMS_PER_BATCH
    if batch % ranks:
        fault = f"{ranks} ranks cannot share a batch of {batch} evenly: give a multiple of {ranks}"
        raise DataError("SOLVER.IMS_PER_BATCH", fault)
    check_files(cfg)
    check_lengths(cfg)
    check_missing_labels(cfg)
    check_mining(cfg)
    check_stages(cfg)
    check_networks(cfg)


def check_contents(cfg: CfgNode, resume: bool) -> None:
    """Refuse weights and ledgers that cannot be used, by reading them; addresses are left to what fetches them.

    Args:
        cfg: of a training.
        resume: whether a run goes on, which needs no initial weights.

    Raises:
        DataError: a file is absent or unsound, or the ledger is of other datasets.
    """
    initial = () if resume else ("MODEL.WEIGHTS", "MODEL.DENSENET.WEIGHTS")
    for key in (*initial, *(key for key in FILES if key.endswith("WEIGHTS"))):
        value = value_of(cfg, key)
        for name in (value,) if isinstance(value, str) else value:
            if name not in BUILT_IN and "://" not in name:
                load_weights(name)
    if cfg.DATASETS.LEDGER:
        load_training_records(cfg)


def check_lengths(cfg: CfgNode) -> None:
    """Refuse trainings without a length, and steps of the learning rate that do not rise.

    Raises:
        DataError: names the key, its value and what is allowed.
    """
    for node in TRAININGS:
        solver = value_of(cfg, node)
        if not solver.EPOCHS and not solver.MAX_ITER:
            raise DataError(f"{node}.MAX_ITER", "0, and EPOCHS is 0, too: one of them gives the length")
        for key in ("STEPS", "EPOCH_STEPS"):
            steps = tuple(solver[key])
            if any(before >= after for before, after in zip((0, *steps), steps, strict=False)):
                raise DataError(f"{node}.{key}", f"{steps}; rising numbers above 0 are needed")


def check_missing_labels(cfg: CfgNode) -> None:
    """Refuse treatments of missing labels that contradict each other or would have no effect.

    Raises:
        DataError: names the key, its value and what is allowed.
    """
    teacher, share = cfg.MODEL.TEACHER, cfg.MODEL.LENS.LABELED_SHARE
    if share <= 0:
        raise DataError("MODEL.LENS.LABELED_SHARE", f"{share}; a number above 0, of at most 1, is needed")
    if teacher.UNCERTAIN_SCORE > teacher.LESION_SCORE:
        fault = f"{teacher.UNCERTAIN_SCORE}, above MODEL.TEACHER.LESION_SCORE ({teacher.LESION_SCORE})"
        raise DataError("MODEL.TEACHER.UNCERTAIN_SCORE", f"{fault}: no detection would be uncertain")
    if teacher.ENABLED and not cfg.MODEL.LENS.EXPERTS:
        raise DataError("MODEL.TEACHER.ENABLED", "True, but MODEL.LENS.EXPERTS names none: it needs LENS or CECN")
    model, is_cecn = cfg.MODEL, cfg.MODEL.META_ARCHITECTURE == "CECN"  # which is CenterNet, with one stage
    of_pixels = model.PROPOSAL_GENERATOR.NAME == "AFP" and not is_cecn
    of_proposals = not (model.LENS.ONE_STAGE or is_cecn)
    for key, value, has_effect, place in (
        ("MODEL.AFP.MISSING_LABELS", model.AFP.MISSING_LABELS, of_pixels, "AFP"),
        ("MODEL.ROI_HEADS.MISSING_LABELS", model.ROI_HEADS.MISSING_LABELS, of_proposals, "a second stage"),
        ("MODEL.ROI_HEADS.NUM_CLASSES", model.ROI_HEADS.NUM_CLASSES > 1, of_proposals, "a second stage"),
        ("MODEL.LENS.LABELED_SHARE", share < 1, of_pixels or of_proposals, "AFP or a second stage"),
    ):
        if value and not has_effect:
            raise DataError(key, f"{value_of(cfg, key)}, but the detector lacks {place}, where it has an effect")
    treated = (teacher.ENABLED, share < 1, cfg.MODEL.AFP.MISSING_LABELS, cfg.MODEL.ROI_HEADS.MISSING_LABELS)
    partial = set(partially_labelled(cfg.DATASETS.TRAIN).values())
    if any(treated) and (not partial or partial != {*cfg.MODEL.LENS.PARTIALLY_LABELED}):
        known = ", ".join(sorted(partial)) or "none, all datasets are fully labelled"
        fault = f"{cfg.MODEL.LENS.PARTIALLY_LABELED}; experts of DATASETS.TRAIN that lack labels: {known}"
        raise DataError("MODEL.LENS.PARTIALLY_LABELED", fault)


def check_stages(cfg: CfgNode) -> None:
    """Refuse stages that would fail after those before them have trained.

    Raises:
        DataError: a stage stands before one that it needs, or without a setting that it needs.
    """
    known = [name for name in cfg.STAGES if name in PLACES]
    for earlier, later in zip(known, known[1:], strict=False):
        if PLACES[earlier] >= PLACES[later]:
            raise DataError("STAGES", f"{tuple(cfg.STAGES)}: {later} cannot stand after {earlier}")
    for stage in known:
        for key in SETTINGS.get(stage, ()):
            if not value_of(cfg, key):
                raise DataError(key, f"empty, and the stage {stage} needs it")
    if "fpr" in known:
        mined_datasets(cfg)
    mines = cfg.MINING.STRATEGIES or "train" not in known
    if "retrain" in known and not cfg.DATASETS.LEDGER and not mines:
        fault = "empty, and the stage retrain needs what they find, or DATASETS.LEDGER"
        raise DataError("MINING.STRATEGIES", fault)


def check_networks(cfg: CfgNode) -> None:
    """Refuse networks of later stages that cannot be built, or cannot take their patch.

    Raises:
        DataError: names the node of the config.
    """
    networks = {
        "fpr": ("FPR", lambda own: build_classifier(own, "FPR")),
        "harvest": ("LPC", lambda own: build_classifier(own, "LPC")),
        "embedding": ("EMBEDDING", lambda own: LesaNet(own, num_labels=2)),
    }
    own = cfg.clone()
    own.defrost()
    own.MODEL.DEVICE = "cpu"
    for stage in (name for name in cfg.STAGES if name in networks):
        node, build = networks[stage]
        try:
            with torch.random.fork_rng(devices=()), torch.no_grad():
                network = build(own).eval()
                is_flat = stage == "embedding"  # it takes slices as channels, and a 2D box
                box = [1.0, 1, 3, 3] if is_flat else [1.0, 1, 1, 3, 3, 3]
                patch = network.grid.shape if is_flat else (1, *network.grid.shape)
                network(torch.zeros(1, *patch), torch.tensor([box]))
        except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            fault = f"cannot build a network that accepts a patch ({reason})"
            raise DataError(f"MODEL.{node}", fault) from error


def check_mining(cfg: CfgNode) -> None:
    """Refuse contradictory settings of ``MINING``.

    Raises:
        DataError: names the key, its value and what is allowed.
    """
    sizes = cfg.MINING.CALIBRATION.SIZES
    if not sizes or sizes[0] <= 0 or any(a >= b for a, b in zip(sizes, sizes[1:], strict=False)):
        raise DataError("MINING.CALIBRATION.SIZES", f"{sizes}; rising mm are needed, such as (16.0, 24.0, 32.0)")
    verified = cfg.MINING.CALIBRATION.DATASET
    if verified and verified in cfg.DATASETS.TRAIN:
        fault = f"{verified}, which DATASETS.TRAIN names: lesions that were learnt say nothing about those to find"
        raise DataError("MINING.CALIBRATION.DATASET", f"{fault}; take another dataset")


def check_evaluation(cfg: CfgNode, resume: bool = False) -> None:
    """Refuse to evaluate random weights, or on no dataset.

    Args:
        cfg: of the evaluation.
        resume: whether the last checkpoint of ``OUTPUT_DIR`` is evaluated.

    Raises:
        DataError: ``MODEL.WEIGHTS`` is empty without a checkpoint to resume from, or ``DATASETS.TEST`` is empty.
    """
    if not cfg.MODEL.WEIGHTS and not (resume and (Path(cfg.OUTPUT_DIR) / LAST_CHECKPOINT).is_file()):
        fault = "empty: an evaluation needs trained weights; add MODEL.WEIGHTS model_final.pth at the end"
        raise DataError("MODEL.WEIGHTS", fault)
    if not cfg.DATASETS.TEST:
        raise DataError("DATASETS.TEST", "names no dataset to evaluate on")
