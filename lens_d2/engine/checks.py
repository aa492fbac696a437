"""Checks of a run's settings, before anything is read, trained or written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.distributed
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import (
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    PROPOSAL_GENERATOR_REGISTRY,
    ROI_BOX_HEAD_REGISTRY,
    ROI_HEADS_REGISTRY,
    ROI_MASK_HEAD_REGISTRY,
)
from fvcore.common.registry import Registry

from ..data.augmentation import AUGMENTATION_REGISTRY
from ..data.datasets.catalog import partially_labelled
from ..data.loader import dataset_numbers, load_training_records
from ..data.mapper import DATASET_COMBINATIONS
from ..data.sampler import EPOCHS
from ..inference.linking import LINKER_REGISTRY
from ..inference.rescoring import SCORE_COMBINATIONS
from ..io.checkpoint import LAST_CHECKPOINT, load_weights
from ..io.config_files import value_of
from ..io.device import find_device
from ..io.errors import DataError, did_you_mean
from ..mining.harvester.rounds import LABEL_SETS
from ..mining.lens.strategies import STRATEGIES
from ..mining.lens.strategies.intra_patient import CALIBRATIONS
from ..mining.proposals import mined_datasets
from ..modeling.adapters import ADAPTERS
from ..modeling.backbone import NORMS, SLICES_PER_IMAGE
from ..modeling.classifiers import CLASSIFIER_LOSS_REGISTRY, CLASSIFIER_REGISTRY
from ..modeling.missing_labels import MISSING_LABELS, treatments_of_pixels
from ..structures.detections import FUSED
from .solver import CLIPPINGS, OPTIMIZERS
from .stages import PLACES, STAGES

# Settings of a training: of the detector, and of the networks that stages train.
SOLVERS = ("SOLVER", "MODEL.FPR.SOLVER", "MODEL.LPC.SOLVER", "MODEL.EMBEDDING.SOLVER")
TRAININGS = (*SOLVERS, "HARVEST.FINETUNE", "HARVEST.FINETUNE_LPC")  # which have a length and a learning rate
# Config keys that name things, with what is allowed: a registry, a table, or a function of the config. An empty
# name means "none".
NAMES: dict[str, Registry | Mapping | Sequence[str] | Callable[[CfgNode], Iterable[str]]] = {
    "MODEL.META_ARCHITECTURE": META_ARCH_REGISTRY,
    "MODEL.BACKBONE.NAME": BACKBONE_REGISTRY,
    "MODEL.DENSENET.ADAPTERS": ADAPTERS,
    "MODEL.DENSENET.NORM": NORMS,
    "MODEL.PROPOSAL_GENERATOR.NAME": PROPOSAL_GENERATOR_REGISTRY,
    "MODEL.ROI_HEADS.NAME": ROI_HEADS_REGISTRY,
    "MODEL.ROI_BOX_HEAD.NAME": ROI_BOX_HEAD_REGISTRY,
    "MODEL.ROI_MASK_HEAD.NAME": ROI_MASK_HEAD_REGISTRY,
    "MODEL.ROI_HEADS.MISSING_LABELS": MISSING_LABELS,
    "MODEL.AFP.MISSING_LABELS": lambda cfg: treatments_of_pixels(),
    "MODEL.LENS.OUTPUT": lambda cfg: (FUSED, *cfg.MODEL.LENS.EXPERTS),
    "MODEL.FPR.NAME": CLASSIFIER_REGISTRY,
    "MODEL.FPR.LOSS": CLASSIFIER_LOSS_REGISTRY,
    "MODEL.FPR.COMBINE": SCORE_COMBINATIONS,
    "MODEL.LPC.NAME": CLASSIFIER_REGISTRY,
    "MODEL.LPC.LOSS": CLASSIFIER_LOSS_REGISTRY,
    **{f"{solver}.OPTIMIZER": OPTIMIZERS for solver in SOLVERS},
    "SOLVER.LR_SCHEDULER_NAME": ("WarmupMultiStepLR", "WarmupCosineLR"),
    "INPUT.AUGMENTATIONS": AUGMENTATION_REGISTRY,
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": CLIPPINGS,
    "DATASETS.COMBINE": DATASET_COMBINATIONS,
    "DATASETS.EPOCH": EPOCHS,
    "DATASETS.TRAIN": lambda cfg: DatasetCatalog.list(),
    "DATASETS.TEST": lambda cfg: DatasetCatalog.list(),
    "MINING.STRATEGIES": STRATEGIES,
    "MINING.DATASETS": lambda cfg: DatasetCatalog.list(),
    "MINING.PROPOSALS": lambda cfg: (FUSED, *cfg.MODEL.LENS.EXPERTS),
    "MINING.INTRA_PATIENT.THRESHOLD": CALIBRATIONS,
    "MINING.CALIBRATION.DATASET": lambda cfg: DatasetCatalog.list(),
    "MINING.HARVESTED.STATUSES": ("annotation", "hard_negative"),
    "MINING.CROSS_DATASET.EXPERTS": lambda cfg: cfg.MODEL.LENS.EXPERTS,
    "HARVEST.VERIFIED": lambda cfg: DatasetCatalog.list(),
    "HARVEST.DATASETS": lambda cfg: DatasetCatalog.list(),
    "HARVEST.TEST": lambda cfg: DatasetCatalog.list(),
    "MODEL.EMBEDDING.DATASETS": lambda cfg: DatasetCatalog.list(),
    "HARVEST.PROPOSALS": lambda cfg: (FUSED, *cfg.MODEL.LENS.EXPERTS),
    "HARVEST.LABELS": LABEL_SETS,
    "TEST.LINKER": LINKER_REGISTRY,
    "STAGES": STAGES,
}
SEEDS = 2**31  # of which ranks and rounds make others
STEPS_MM, SCALES, LEAST_SIDE = (0.1, 50.0), (0.1, 10.0), 32  # of pixels and slices; at inference; pixels
# Settings that are shares.
SHARES = (
    "MODEL.TEACHER.DECAY",
    "MODEL.TEACHER.LESION_SCORE",
    "MODEL.TEACHER.UNCERTAIN_SCORE",
    "MODEL.TEACHER.IOU",
    "MODEL.LENS.LABELED_SHARE",
    "MINING.CALIBRATION.LEAST_PRECISION",
    "MINING.SELF_TRAINING.PRECISION",
    "MINING.SELF_TRAINING.QUOTA",
    "MINING.SELF_TRAINING.UNCERTAIN_PRECISION",
    "MINING.SELF_TRAINING.SCORE_THRESH",
    "MINING.HARVESTED.REJECTED_BELOW",
    "MINING.SAME_PLACE.PRECISION",
    "MINING.SAME_PLACE.SCORE_THRESH",
    "MINING.EXPERT_AGREEMENT.SCORE_THRESH",
    "MINING.IOU",
    "MINING.INTRA_PATIENT.SCORE_THRESH",
    "MINING.CROSS_DATASET.SCORE_THRESH",
    "MINING.MISSING_GROUND_TRUTH.SCORE_THRESH",
    "HARVEST.HIT_IOU",
    "HARVEST.SAME_IOU",
    "HARVEST.PRECISION",
    "HARVEST.SCORE_THRESH",
    "HARVEST.NEGATIVE_SCORE_THRESH",
    "HARVEST.NEGATIVE_LESION_SCORE_THRESH",
    "MODEL.FPR.TP_IOU",
    "MODEL.FPR.FP_IOU",
    "MODEL.FPR.FP_SCORE_THRESH",
    "MODEL.LENS.PROPOSAL_NMS_THRESH",
    "MODEL.ROI_HEADS.POSITIVE_FRACTION",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST",
    "MODEL.ROI_HEADS.NMS_THRESH_TEST",
    "TEST.LINK_IOU",
    "TEST.LINK_SCORE_THRESH",
)
# Settings that are numbers, by what is needed of them.
NUMBERS: dict[str, tuple[Callable[[float], bool], tuple[str, ...]]] = {
    "at least 1": (
        lambda value: value >= 1,
        (
            *(f"{node}.{count}" for node in SOLVERS for count in ("CHECKPOINT_PERIOD", "IMS_PER_BATCH")),
            "MODEL.AFP.CONV_DIM",
            "MODEL.AFP.PRE_NMS_TOPK_TRAIN",
            "MODEL.AFP.PRE_NMS_TOPK_TEST",
            "MODEL.GATE.FC_DIM",
            "MODEL.LENS.POST_NMS_TOPK_TRAIN",
            "MODEL.LENS.POST_NMS_TOPK_TEST",
            "MODEL.ROI_HEADS.NUM_CLASSES",
            "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE",
            "MODEL.TEACHER.VISITS",
            *(
                f"MODEL.{network}.{count}"
                for network in ("FPR", "LPC", "EMBEDDING")
                for count in ("BATCH_SIZE_TEST", "WIDTH", "FC_DIM")
            ),
            "MINING.ROUNDS",
            "MINING.EXPERT_AGREEMENT.EXPERTS",
            "MINING.CALIBRATION.MIN_LESIONS",
            "MINING.MISSING_GROUND_TRUTH.MIN_SLICES",
            "HARVEST.ROUNDS",
            "TEST.DETECTIONS_PER_IMAGE",
        ),
    ),
    "at least 0": (
        lambda value: value >= 0,
        (
            *(f"{node}.{length}" for node in TRAININGS for length in ("EPOCHS", "MAX_ITER")),
            *(f"{node}.WARMUP_ITERS" for node in SOLVERS),
            "DATALOADER.NUM_WORKERS",
            "INPUT.SHIFT_RANGE",
            "MODEL.TEACHER.START_ITER",
            "HARVEST.NEGATIVES_PER_VOLUME",
        ),
    ),
    "a number from 0": (
        lambda value: value >= 0,
        (
            *(f"{node}.WEIGHT_DECAY" for node in SOLVERS),
            "DATASETS.NEGATIVE_RATIO",
            "DATASETS.HARD_NEGATIVE_RATIO",
            "MINING.INTRA_PATIENT.DISTANCE",
            "MINING.SAME_PLACE.DISTANCE",
            "MODEL.FPR.FP_SCORE_POWER",
        ),
    ),
    "a number above 0": (
        lambda value: value > 0,
        (
            *(f"{node}.BASE_LR" for node in TRAININGS),
            *(f"{node}.GAMMA" for node in SOLVERS),
            "SOLVER.CLIP_GRADIENTS.CLIP_VALUE",
            "MODEL.AFP.PRIOR_PROB",
        ),
    ),
    "a number from 0 to 1": (lambda value: 0 <= value <= 1, SHARES),
}
# Settings that are several numbers: how many, and whether they may be 0.
TUPLES = {
    **{f"MODEL.{node}.PATCH_SIZE": (3, False) for node in ("FPR", "LPC", "EMBEDDING")},
    **{f"MODEL.{node}.PATCH_SPACING": (3, False) for node in ("FPR", "LPC", "EMBEDDING")},
    "MODEL.EMBEDDING.LOSS_WEIGHTS": (4, True),
}
# Settings that name files, which are opened after hours of training.
FILES = (
    "DATASETS.LEDGER",
    "MINING.REVIEWED",
    "MINING.HARVESTED.LEDGER",
    "HARVEST.WEIGHTS",
    *(f"MODEL.{network}.WEIGHTS" for network in ("FPR", "LPC", "EMBEDDING")),
    *(f"MODEL.{network}.BACKBONE_WEIGHTS" for network in ("FPR", "LPC", "EMBEDDING")),
)
BUILT_IN = ("imagenet", "")  # in place of a file
# Settings that a stage needs.
STAGE_NEEDS = {
    "mine": ("MODEL.WEIGHTS", "MINING.STRATEGIES"),
    "self_training": ("MINING.STRATEGIES",),
    "evaluate": ("DATASETS.TEST",),
}
# Variables with the numbers of a job's GPUs, and with their count.
GPU_LISTS = ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_GPUS", "SLURM_STEP_GPUS")
GPU_COUNTS = ("SLURM_GPUS_ON_NODE", "SLURM_GPUS")
NO_GPUS = ("", "-1", "NoDevFiles")


def check_names(cfg: CfgNode) -> None:
    """Refuse a config with an unknown name: of an architecture, a dataset, a stage, an optimizer ...

    Raises:
        DataError: names the key and near names.
    """
    for key, source in NAMES.items():
        source = source(cfg) if callable(source) else source
        known = [name for name, _ in source] if isinstance(source, Registry) else list(source)
        value = value_of(cfg, key)
        for name in (value,) if isinstance(value, str) else value:
            if isinstance(name, (tuple, list)) and name:  # a pair of a name and parameters
                name = name[0]
            if not isinstance(name, str):
                raise DataError(key, f"{name!r} is no name")
            if name and name not in known:
                raise DataError(key, f"no {name!r}{did_you_mean(str(name), known)}")


def check_input(cfg: CfgNode) -> None:
    """Refuse settings of ``INPUT`` and ``TEST`` that no scan can be looked at with.

    Raises:
        DataError: names the key, its value and what is allowed.
    """
    window, slices, scales = tuple(cfg.INPUT.HU_WINDOW), cfg.INPUT.NUM_SLICES, tuple(cfg.TEST.SCALES)
    if len(window) != 2 or not window[0] < window[1]:
        raise DataError("INPUT.HU_WINDOW", f"{window}; two rising HU are needed, such as (-1024.0, 3071.0)")
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
        fault = f"{experts}; each name once, and none {FUSED!r}, which is their common output"
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
        fault = f"empty, and SOLVER.PARTS {tuple(solver.PARTS)} alone learn: give weights of a detector"
        raise DataError("MODEL.WEIGHTS", fault)
    for needed, (is_allowed, keys) in NUMBERS.items():
        for key in keys:
            if not is_allowed(value_of(cfg, key)):
                raise DataError(key, f"{value_of(cfg, key)}; {needed} is needed")
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
    for key, (length, may_be_0) in TUPLES.items():
        numbers = tuple(value_of(cfg, key))
        if len(numbers) != length or not all(number > 0 or may_be_0 and number == 0 for number in numbers):
            needed = f"{length} numbers {'from' if may_be_0 else 'above'} 0"
            raise DataError(key, f"{numbers}; {needed} are needed")
    check_files(cfg)
    check_lengths(cfg)
    check_missing_labels(cfg)
    check_mining(cfg)
    check_stages(cfg)


def check_files(cfg: CfgNode) -> None:
    """Refuse names of files that are not there; addresses are left to what fetches them.

    Raises:
        DataError: names the key and the file.
    """
    for key in FILES:
        value = value_of(cfg, key)
        for name in (value,) if isinstance(value, str) else value:
            if name not in BUILT_IN and "://" not in name and not Path(name).is_file():
                raise DataError(key, f"{name}: no such file")


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
    """Refuse treatments of missing labels that cannot be meant, or would have no effect.

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
    if any(treated) and (not partial or partial - {*cfg.MODEL.LENS.PARTIALLY_LABELED}):
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
        for key in STAGE_NEEDS.get(stage, ()):
            if not value_of(cfg, key):
                raise DataError(key, f"empty, and the stage {stage} needs it")
    if "fpr" in known:
        mined_datasets(cfg)
    mines = cfg.MINING.STRATEGIES or "train" not in known or "harvest" in known
    if "retrain" in known and not cfg.DATASETS.LEDGER and not mines:
        fault = "empty, and the stage retrain needs what they find, or DATASETS.LEDGER"
        raise DataError("MINING.STRATEGIES", fault)


def check_mining(cfg: CfgNode) -> None:
    """Refuse settings of ``MINING`` that cannot be meant.

    Raises:
        DataError: names the key, its value and what is allowed.
    """
    sizes = cfg.MINING.CALIBRATION.SIZES
    if not sizes or sizes[0] <= 0 or any(a >= b for a, b in zip(sizes, sizes[1:], strict=False)):
        raise DataError("MINING.CALIBRATION.SIZES", f"{sizes}; rising mm are needed, such as (16.0, 24.0, 32.0)")
    verified = cfg.MINING.CALIBRATION.DATASET
    if verified and verified in cfg.DATASETS.TRAIN:
        fault = f"{verified}, which DATASETS.TRAIN names: lesions that were learnt say nothing about those to find"
        raise DataError("MINING.CALIBRATION.DATASET", fault)


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


def check_device(cfg: CfgNode, num_gpus: int | None = None) -> None:
    """Refuse to continue without a GPU that was asked for or allotted.

    Args:
        cfg: ``MODEL.DEVICE`` is read.
        num_gpus: of the command line, None unless given there.

    Raises:
        DataError: torch does not know the device; or it is a GPU, none can be used, and ``--num-gpus``, torchrun
            or SLURM has promised one.
    """
    device = find_device(cfg.MODEL.DEVICE, "MODEL.DEVICE")
    if device.type != "cuda" or torch.cuda.is_available():
        return
    reason = _gpus_expected(num_gpus)
    if reason:
        hint = "look at nvidia-smi and at torch's CUDA version, or set MODEL.DEVICE cpu"
        raise DataError("MODEL.DEVICE", f"{device}, but torch finds no GPU, and {reason}: {hint}")


def _gpus_expected(num_gpus: int | None) -> str:
    """The reason why a job must not continue without a GPU; empty if it may."""
    if num_gpus:
        return f"--num-gpus {num_gpus} asks for some"
    launcher = "torchrun" if torch.distributed.is_torchelastic_launched() else ""
    launcher = launcher or ("SLURM" if "SLURM_JOB_ID" in os.environ else "")
    if not launcher or os.environ.get("CUDA_VISIBLE_DEVICES", "unset") in NO_GPUS:
        return ""
    promised = any(os.environ.get(name, "") not in NO_GPUS for name in GPU_LISTS)
    promised = promised or any(os.environ.get(name, "0") != "0" for name in GPU_COUNTS)
    promised = promised or any(Path("/dev").glob("nvidia[0-9]*"))
    return f"{launcher} has started a job with GPUs" if promised else ""
