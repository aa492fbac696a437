"""Values that config keys may have: names, numbers and files, each kind in a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
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
from ..data.mapper import DATASET_COMBINATIONS
from ..data.sampler import EPOCHS
from ..inference.linking import LINKER_REGISTRY
from ..inference.rescoring import SCORE_COMBINATIONS
from ..io.config_files import value_of
from ..io.errors import DataError, did_you_mean
from ..mining.harvester.rounds import LABEL_SETS
from ..mining.lens.strategies import STRATEGIES
from ..mining.lens.strategies.intra_patient import CALIBRATIONS
from ..modeling.adapters import ADAPTERS
from ..modeling.backbone import NORMS
from ..modeling.classifiers import CLASSIFIER_LOSS_REGISTRY, CLASSIFIER_REGISTRY
from ..modeling.classifiers.global_local import BOX, PATCH
from ..modeling.missing_labels import MISSING_LABELS, treatments_of_pixels
from ..structures.detections import FUSED
from .solver import CLIPPINGS, OPTIMIZERS
from .stages import STAGES

GENERATORS, MODES = ("AFP", "FCOS", "CENTERNET"), ("TRAIN", "TEST")  # parts of names of keys
# Settings of a training: of the detector, and of the networks that stages train.
SOLVERS = ("SOLVER", "MODEL.FPR.SOLVER", "MODEL.LPC.SOLVER", "MODEL.EMBEDDING.SOLVER")
TRAININGS = (*SOLVERS, "HARVEST.FINETUNE", "HARVEST.FINETUNE_LPC")  # which have a length and a learning rate
# Config keys that name things, with what is allowed: a registry, a table, or a function of the config. An empty
# name means "none".


def _registered(_cfg: CfgNode) -> list[str]:
    """Names of all datasets."""
    return DatasetCatalog.list()


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
    **{f"MODEL.{network}.RESNET_REGION": (PATCH, BOX) for network in ("FPR", "LPC")},
    "MODEL.LPC.NAME": CLASSIFIER_REGISTRY,
    "MODEL.LPC.LOSS": CLASSIFIER_LOSS_REGISTRY,
    **{f"{solver}.OPTIMIZER": OPTIMIZERS for solver in SOLVERS},
    "SOLVER.LR_SCHEDULER_NAME": ("WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR"),
    "INPUT.AUGMENTATIONS": AUGMENTATION_REGISTRY,
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": CLIPPINGS,
    "DATASETS.COMBINE": DATASET_COMBINATIONS,
    "DATASETS.EPOCH": EPOCHS,
    "DATASETS.TRAIN": _registered,
    "DATASETS.TEST": _registered,
    "MINING.STRATEGIES": STRATEGIES,
    "MINING.DATASETS": _registered,
    "MINING.PROPOSALS": lambda cfg: (FUSED, *cfg.MODEL.LENS.EXPERTS),
    "MINING.INTRA_PATIENT.THRESHOLD": CALIBRATIONS,
    "MINING.CALIBRATION.DATASET": _registered,
    "MINING.HARVESTED.STATUSES": ("annotation", "hard_negative"),
    "MINING.CROSS_DATASET.EXPERTS": lambda cfg: cfg.MODEL.LENS.EXPERTS,
    "HARVEST.VERIFIED": _registered,
    "HARVEST.DATASETS": _registered,
    "HARVEST.TEST": _registered,
    "MODEL.EMBEDDING.DATASETS": _registered,
    "HARVEST.PROPOSALS": lambda cfg: (FUSED, *cfg.MODEL.LENS.EXPERTS),
    "HARVEST.LABELS": LABEL_SETS,
    "TEST.LINKER": LINKER_REGISTRY,
    "STAGES": STAGES,
}
# Settings that are shares.
SHARES = (
    "MODEL.AFP.CENTER_RATIO",
    "MODEL.AFP.IGNORE_RATIO",
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
    "MODEL.ROI_HEADS.IGNORE_IOU",
    "MODEL.EMBEDDING.CALIBRATION_PRECISION",
    "TEST.LINK_IOU",
    "TEST.LINK_SCORE_THRESH",
)
# Settings that are numbers, by what is needed of them.
NUMBERS: dict[str, tuple[Callable[[float], bool], tuple[str, ...]]] = {
    "at least 1": (
        lambda value: value >= 1,
        (
            *(f"{node}.{count}" for node in SOLVERS for count in ("CHECKPOINT_PERIOD", "IMS_PER_BATCH")),
            *(f"MODEL.DENSENET.{width}" for width in ("GROWTH_RATE", "INIT_FEATURES", "BN_SIZE", "OUT_CHANNELS")),
            *(f"MODEL.{generator}.CONV_DIM" for generator in ("AFP", "CENTERNET")),
            *(f"MODEL.{generator}.PRE_NMS_TOPK_{mode}" for generator in ("AFP", "FCOS") for mode in MODES),
            *(f"MODEL.CENTERNET.TOPK_{mode}" for mode in MODES),
            "MODEL.GATE.FC_DIM",
            "MODEL.MULAN.NUM_TAGS",
            "MODEL.MULAN.TAG_FC_DIM",
            "MODEL.ROI_BOX_HEAD.FC_DIM",
            "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION",
            *(f"MODEL.LENS.POST_NMS_TOPK_{mode}" for mode in MODES),
            "MODEL.ROI_HEADS.NUM_CLASSES",
            "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE",
            "MODEL.TEACHER.VISITS",
            *(
                f"MODEL.{network}.{count}"
                for network in ("FPR", "LPC", "EMBEDDING")
                for count in ("BATCH_SIZE_TEST", "WIDTH", "FC_DIM")
            ),
            *(f"MODEL.EMBEDDING.{count}" for count in ("DIM", "POOLER_RESOLUTION", "RHEM_DRAWS", "TRIPLETS")),
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
            "MODEL.CENTERNET.MIN_RADIUS",
            "MODEL.TEACHER.START_ITER",
            "HARVEST.FOLDS",
            "HARVEST.NEGATIVES_PER_VOLUME",
            "TEST.OVERLAYS",
            "TEST.TRACKER.EXTEND",
        ),
    ),
    "a number from 0": (
        lambda value: value >= 0,
        (
            *(f"{node}.WEIGHT_DECAY" for node in SOLVERS),
            "INPUT.BORDER_MARGIN",
            "DATASETS.NEGATIVE_RATIO",
            "DATASETS.HARD_NEGATIVE_RATIO",
            "MINING.INTRA_PATIENT.DISTANCE",
            "MINING.SAME_PLACE.DISTANCE",
            "MODEL.FPR.FP_SCORE_POWER",
            "MODEL.AFP.HARD_NEGATIVE_WEIGHT",
            *(f"MODEL.{node}.FOCAL_GAMMA" for node in ("AFP", "FPR", "LPC")),
            *(f"MODEL.CENTERNET.{key}" for key in ("ALPHA", "BETA", "OFFSET_LOSS_WEIGHT")),
            "MODEL.LENS.SIZE_LOSS_WEIGHT",
            "MODEL.MULAN.MASK_LOSS_WEIGHT",
            "MODEL.MULAN.TAG_LOSS_WEIGHT",
            *(
                f"MODEL.EMBEDDING.{key}"
                for key in ("BOX_JITTER", "MIN_SIMILARITY", "RHEM_POWER", "TRIPLET_MARGIN")
            ),
        ),
    ),
    "a number above 0": (
        lambda value: value > 0,
        (
            *(f"{node}.BASE_LR" for node in TRAININGS),
            *(f"{node}.GAMMA" for node in SOLVERS),
            "SOLVER.CLIP_GRADIENTS.CLIP_VALUE",
            "MODEL.EMBEDDING.MAX_POSITIVE_WEIGHT",
            *(f"MODEL.{network}.PIXEL_STD" for network in ("FPR", "LPC", "EMBEDDING")),
            "MODEL.FCOS.CENTER_SAMPLING_RADIUS",
            "HARVEST.NEGATIVE_IOU",
            "MODEL.FPR.FP_PER_TP",
            "MODEL.LPC.FP_PER_TP",
        ),
    ),
    "a number between 0 and 1": (
        lambda value: 0 < value < 1,
        (*(f"MODEL.{generator}.PRIOR_PROB" for generator in GENERATORS), "MODEL.CENTERNET.MIN_OVERLAP"),
    ),
    "a number of at most 1": (
        lambda value: value <= 1,
        tuple(f"MODEL.{node}.FOCAL_ALPHA" for node in ("AFP", "FPR", "LPC")),
    ),
    "a number from 0 to 1": (lambda value: 0 <= value <= 1, SHARES),
}
# Settings that are several numbers: how many, and whether they may be 0.
TUPLES = {
    **{f"MODEL.{node}.PATCH_SIZE": (3, False) for node in ("FPR", "LPC", "EMBEDDING")},
    **{f"MODEL.{node}.PATCH_SPACING": (3, False) for node in ("FPR", "LPC", "EMBEDDING")},
    "MODEL.EMBEDDING.LOSS_WEIGHTS": (4, True),
    "MODEL.DENSENET.BLOCK_CONFIG": (3, False),
    **{f"MODEL.{network}.SHIFT_MM": (3, True) for network in ("FPR", "LPC")},
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


def check_names(cfg: CfgNode, with_datasets: bool = True) -> None:
    """Refuse a config with an unknown name: of an architecture, a dataset, a stage, an optimizer ...

    Args:
        cfg: of a command.
        with_datasets: whether the command opens datasets.

    Raises:
        DataError: names the key and near names.
    """
    for key, source in NAMES.items():
        if source is _registered and not with_datasets:
            continue
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


def check_numbers(cfg: CfgNode) -> None:
    """Refuse numbers of a training that are out of range.

    Raises:
        DataError: names the key, its value and what is allowed.
    """
    for needed, (is_allowed, keys) in NUMBERS.items():
        for key in keys:
            if not is_allowed(value_of(cfg, key)):
                raise DataError(key, f"{value_of(cfg, key)}; {needed} is needed")
    for key, (length, may_be_0) in TUPLES.items():
        numbers = tuple(value_of(cfg, key))
        if len(numbers) != length or not all(number > 0 or may_be_0 and number == 0 for number in numbers):
            needed = f"{length} numbers {'from' if may_be_0 else 'above'} 0"
            raise DataError(key, f"{numbers}; {needed} are needed")


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
