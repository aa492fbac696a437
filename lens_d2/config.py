"""Config keys that the project adds to Detectron2's, with their defaults; the reading of a command's config."""

import os
from collections.abc import Sequence
from functools import reduce

from detectron2.config import CfgNode as CN
from detectron2.config import get_cfg

from . import modeling  # noqa: F401  (registers the networks)
from .data.datasets import import_readers  # (and this the datasets)
from .io.config_files import find_config, merge_file, merge_opts, refuse_other_types
from .io.errors import DataError


def load_config(path: str | os.PathLike = "", opts: Sequence = ()) -> CN:
    """Read the config of a command: the defaults, a file, overrides; register ``DATASETS.READERS``.

    Args:
        path: of the config file, see :func:`find_config`; empty: none.
        opts: key, value, key, value ...; of ``MAX_ITER`` and ``EPOCHS`` the later one counts, and either one
            replaces the file's.

    Raises:
        DataError: the file is absent or damaged, or would run code; a key or a value cannot be used, or would have
            no effect; a reader is absent or cannot be run.
    """
    cfg = get_cfg()
    add_lens_config(cfg)
    defaults = cfg.clone()
    if path:
        merge_file(cfg, find_config(path))
    merge_opts(cfg, list(opts))
    _count_iterations(cfg, opts[::2])
    refuse_other_types(cfg, defaults)
    import_readers(cfg.DATASETS.READERS)
    return cfg


def _count_iterations(cfg: CN, overridden: Sequence[str]) -> None:
    """Let an overriding ``MAX_ITER`` replace an earlier ``EPOCHS``, and scale its steps.

    Raises:
        DataError: an override would have no effect: ``STEPS`` after ``EPOCHS``, or with those of the file;
            ``EPOCH_STEPS`` where ``MAX_ITER`` and ``STEPS`` count.
    """
    places = {key: place for place, key in enumerate(overridden)}
    for node in dict.fromkeys(key.rpartition(".")[0] for key in overridden):
        training = reduce(getattr, node.split("."), cfg) if node else cfg
        if "EPOCHS" not in training:
            continue
        epochs, epoch_steps, iterations, steps = (
            places.get(f"{node}.{key}", -1) for key in ("EPOCHS", "EPOCH_STEPS", "MAX_ITER", "STEPS")
        )
        if training.EPOCHS and epochs >= iterations:
            if steps > epochs:
                fault = f"the training has {training.EPOCHS} epochs (EPOCHS): set EPOCH_STEPS, or MAX_ITER as well"
                raise DataError(f"{node}.STEPS", fault)
            continue
        if training.EPOCHS and steps < 0:
            scaled = {round(training.MAX_ITER * epoch / training.EPOCHS) for epoch in training.EPOCH_STEPS}
            training.STEPS = tuple(sorted(step for step in scaled if 0 < step <= training.MAX_ITER))
        elif training.EPOCH_STEPS and epoch_steps > (iterations if training.EPOCHS else -1):
            fault = f"the training has {training.MAX_ITER} iterations (MAX_ITER): set STEPS, or EPOCHS as well"
            raise DataError(f"{node}.EPOCH_STEPS", fault)
        training.EPOCHS = 0


def add_lens_config(cfg: CN) -> None:
    """Add the project's keys, with the values of the LENS paper, to a Detectron2 config in place.

    Keys that Detectron2 has already (``MODEL.ROI_HEADS``, ``MODEL.RPN``, ``SOLVER``) keep their meaning.
    """
    # The steps of a run, by their names in lens_d2.engine.stages, each in its folder below OUTPUT_DIR. Empty:
    # plain training in OUTPUT_DIR itself.
    cfg.STAGES = ()
    _add_input_keys(cfg)
    _add_dataset_keys(cfg)
    _add_lens_keys(cfg)
    _add_teacher_keys(cfg)
    _add_densenet_keys(cfg)
    _add_afp_keys(cfg)
    _add_centernet_keys(cfg)
    _add_fcos_keys(cfg)
    _add_roi_heads_keys(cfg)
    _add_gate_keys(cfg)
    _add_mulan_keys(cfg)
    _add_solver_keys(cfg)
    _add_test_keys(cfg)
    _add_fpr_keys(cfg)
    _add_lpc_keys(cfg)
    _add_embedding_keys(cfg)
    _add_mining_keys(cfg)
    _add_strategy_keys(cfg)
    _add_harvest_keys(cfg)


def _add_input_keys(cfg: CN) -> None:
    # Axial slices of one sample: images of three neighbouring slices each, 9 slices being three images (VI-B).
    cfg.INPUT.NUM_SLICES = 9
    # Pixel size, in mm, to which every axial slice is resized (VI-A).
    cfg.INPUT.PIXEL_SPACING = 0.8
    # Slice interval, in mm, to which volumes are interpolated along z when they are read (VI-A).
    cfg.INPUT.SLICE_INTERVAL = 2.0
    # HU range that is mapped linearly to 0..255 (VI-A).
    cfg.INPUT.HU_WINDOW = (-1024.0, 3071.0)
    # Black borders are clipped to the bounding box of the voxels above this HU ("black borders clipped", VI-A) ...
    cfg.INPUT.BORDER_HU = -500.0
    # ... widened by this many mm on every side.
    cfg.INPUT.BORDER_MARGIN = 8.0
    # Images with a longer side than this, in pixels, are scaled down to it (MULAN).
    cfg.INPUT.MAX_SIZE = 512
    # Augmentations of training in their order, by their names in lens_d2/data/augmentation.py; one with parameters
    # is a pair, such as ("RandomFlip", {"prob": 0.5}). INPUT.CROP comes after them. The paper's (VI-A) are:
    cfg.INPUT.AUGMENTATIONS = ("Scale", "Shift")
    # "Scale" resizes by a ratio drawn from this range ...
    cfg.INPUT.SCALE_RANGE = (0.8, 1.2)
    # ... and "Shift" moves image and boxes by up to this many pixels along x and y.
    cfg.INPUT.SHIFT_RANGE = 8
    # Folder of the preprocessed volumes; empty: `cache` beside the dataset folders.
    cfg.INPUT.CACHE_DIR = ""


def _add_dataset_keys(cfg: CN) -> None:
    # Negative slices drawn per positive slice in an epoch: positive to negative is 2:1 (VI-B).
    cfg.DATASETS.NEGATIVE_RATIO = 0.5
    # Positive slices of an epoch: "lesions", for each 3D lesion one of the slices on which its box is known
    # (VI-B); or "slices", each slice with a lesion once, so that the epoch has both the key slice of a mark and
    # the best slice harvested for it (Lesion-Harvester, III-D).
    cfg.DATASETS.EPOCH = "lesions"
    # At most this many slices of hard negatives (from a ledger) per positive slice in an epoch.
    cfg.DATASETS.HARD_NEGATIVE_RATIO = 1.0
    # Whether they are drawn so that all sub-volumes count equally; otherwise each hard negative is equally likely.
    cfg.DATASETS.HARD_NEGATIVES_BY_RECORD = False
    # Whether slices without any mark serve as negatives where a dataset is partially labelled, or has no 3D truth.
    # Table III's "+ Unlabeled"; without it such a dataset has positive slices alone.
    cfg.DATASETS.UNLABELED_SLICES = False
    # How datasets are combined (Table IV): "experts" (a head per dataset), "pooling" (one head for all), or
    # "positive_pooling" (one head; all datasets but the first give positive regions only).
    cfg.DATASETS.COMBINE = "experts"
    # Pairs of a dataset of DATASETS.TRAIN and a share of its patients that is trained on, such as
    # (("luna_train", 0.25), ("lits_train", 0.25)) (LENS, Fig. 6). A smaller share is a part of a larger one; which
    # patients they are depends on SEED. Datasets that are not named are used whole.
    cfg.DATASETS.SHARES = ()
    # Pairs of a dataset of DATASETS.TRAIN and how often an epoch draws each of its samples: 2.0 twice, 0.5 every
    # other one, anew in each epoch. Datasets that are not named have 1 (LENS, VI-B: "reweight the samples").
    cfg.DATASETS.WEIGHTS = ()
    # Ledger (.parquet or .csv) of mined boxes that is merged into the training records. Empty: none.
    cfg.DATASETS.LEDGER = ""
    # Whether its uncertain regions are trained on as lesions (Table IV, "Ignored as GT").
    cfg.DATASETS.UNCERTAIN_AS_LESION = False
    # Python files that register further datasets (docs/add_dataset.md); relative to the working directory.
    cfg.DATASETS.READERS = ()


def _add_lens_keys(cfg: CN) -> None:
    # The experts, in order; each has an AFP and a layer of the detection head. A dataset's expert is named in
    # its metadata. Empty: one expert, for Detectron2's own detectors (docs/detectors.md).
    cfg.MODEL.LENS = CN()
    cfg.MODEL.LENS.EXPERTS = ("deeplesion", "luna", "lits", "nih_ln")
    # The detections that count as the model's own: "fused", or the name of one expert (Table I, row b).
    cfg.MODEL.LENS.OUTPUT = "fused"
    # Proposals of all AFPs are pooled and filtered by NMS at this IoU, the best ones kept.
    cfg.MODEL.LENS.PROPOSAL_NMS_THRESH = 0.7
    cfg.MODEL.LENS.POST_NMS_TOPK_TRAIN = 300
    cfg.MODEL.LENS.POST_NMS_TOPK_TEST = 100
    # Weights of the losses in Eq. 1: lambda_1 of the size loss. (lambda_2 is
    # MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT.)
    cfg.MODEL.LENS.SIZE_LOSS_WEIGHT = 0.1

    # Experts whose datasets have lesions without a label. Only they use the treatment that MISSING_LABELS of AFP
    # and of ROI_HEADS names, the teacher, ...
    cfg.MODEL.LENS.PARTIALLY_LABELED = ("deeplesion",)
    # ... and the positive-unlabelled risk in AFP and ROI_HEADS, by the share of their lesions that is labelled
    # (DeepLesion: 0.25); 1.0 turns it off.
    cfg.MODEL.LENS.LABELED_SHARE = 1.0
    # Whether the generators' boxes are the detections, without a detection head (Table II, "one"). Generators, by
    # MODEL.PROPOSAL_GENERATOR.NAME: "AFP", "CenterNet", "FCOS", and "LENSRPN", which has Detectron2's MODEL.RPN.
    cfg.MODEL.LENS.ONE_STAGE = False


def _add_teacher_keys(cfg: CN) -> None:
    # A teacher, the moving average of the weights, labels what the experts of PARTIALLY_LABELED find while they
    # learn; its weights are those that the training ends with (docs/mining.md).
    cfg.MODEL.TEACHER = CN()
    cfg.MODEL.TEACHER.ENABLED = False
    # Part of the teacher's weights that a step keeps; the rest is the student's.
    cfg.MODEL.TEACHER.DECAY = 0.999
    # Steps after which it begins to label.
    cfg.MODEL.TEACHER.START_ITER = 1000
    # Score from which on a detection is a lesion, and from which on at least an uncertain region, ...
    cfg.MODEL.TEACHER.LESION_SCORE = 0.95
    cfg.MODEL.TEACHER.UNCERTAIN_SCORE = 0.5
    # ... unless its IoU with a known box, or the share of it that lies inside one, is at least this.
    cfg.MODEL.TEACHER.IOU = 0.3
    # Consecutive visits of a slice in which a finding must recur to be a lesion, uncertain until then. 1: no bank.
    cfg.MODEL.TEACHER.VISITS = 1


def _add_densenet_keys(cfg: CN) -> None:
    cfg.MODEL.DENSENET = CN()
    # DenseNet-121, truncated after dense block 3.
    cfg.MODEL.DENSENET.GROWTH_RATE = 32
    cfg.MODEL.DENSENET.BLOCK_CONFIG = (6, 12, 24)
    cfg.MODEL.DENSENET.INIT_FEATURES = 64
    cfg.MODEL.DENSENET.BN_SIZE = 4
    # Channels of the pyramid, and so of the stride-4 map that the heads use.
    cfg.MODEL.DENSENET.OUT_CHANNELS = 512
    # "BN", "FrozenBN" (statistics and affine fixed) or "SyncBN".
    cfg.MODEL.DENSENET.NORM = "BN"
    # Adaptation to the experts' datasets (Table IV; lens_d2/modeling/adapters.py): "residual", 1x1 convolutions
    # for each dataset (at inference the backbone then runs once per expert); "domain_attention", a bank of
    # squeeze-and-excitation adapters; empty: none, all datasets share everything.
    cfg.MODEL.DENSENET.ADAPTERS = ""
    # Initial weights of the trunk: a file with a DenseNet state_dict, "imagenet" for torchvision's
    # densenet121, a checkpoint of this project (then of the pyramid as well), or empty for random
    # initialisation. Not used where MODEL.WEIGHTS is given.
    cfg.MODEL.DENSENET.WEIGHTS = ""


def _add_afp_keys(cfg: CN) -> None:
    cfg.MODEL.AFP = CN()
    cfg.MODEL.AFP.IN_FEATURE = "p2"
    # Hidden channels of both branches. The paper gives none.
    cfg.MODEL.AFP.CONV_DIM = 128
    # r_c and r_i: sides of the centre region and of the ignored region, as parts of the box's (IV-B).
    cfg.MODEL.AFP.CENTER_RATIO = 0.2
    cfg.MODEL.AFP.IGNORE_RATIO = 0.5
    # Focal loss of the centerness branch. An alpha below 0 weighs both classes alike.
    cfg.MODEL.AFP.FOCAL_ALPHA = 0.25
    cfg.MODEL.AFP.FOCAL_GAMMA = 2.0
    # Probability that the centerness branch gives at the start of training.
    cfg.MODEL.AFP.PRIOR_PROB = 0.01
    # Hard negative suppression: weight of a pixel in a hard negative's centre region; with 1 it is like any other
    # background. Lesion-Harvester's loss, for CenterNet, amounts to 16 (Eq. 8).
    cfg.MODEL.AFP.HARD_NEGATIVE_WEIGHT = 1.0
    # Rule that weighs background pixels where labels are missing: "HIGH_SCORES"; empty: all weigh the same.
    cfg.MODEL.AFP.MISSING_LABELS = ""
    # Pixels that become proposals, per image and AFP, before the pooled NMS.
    cfg.MODEL.AFP.PRE_NMS_TOPK_TRAIN = 300
    cfg.MODEL.AFP.PRE_NMS_TOPK_TEST = 200
    # Centerness below which a pixel gives no proposal at inference.
    cfg.MODEL.AFP.SCORE_THRESH_TEST = 0.0


def _add_fcos_keys(cfg: CN) -> None:
    # FCOS as a proposal generator, Detectron2's.
    cfg.MODEL.FCOS = CN()
    cfg.MODEL.FCOS.IN_FEATURE = "p2"
    # Channels of the 3x3 convolutions of both subnets, and the normalisation after each.
    cfg.MODEL.FCOS.CONV_DIMS = (256, 256, 256, 256)
    cfg.MODEL.FCOS.NORM = "GN"
    # Probability that the classification gives at the start of training.
    cfg.MODEL.FCOS.PRIOR_PROB = 0.01
    # A pixel is positive inside a lesion's box and less than this many strides from its centre.
    cfg.MODEL.FCOS.CENTER_SAMPLING_RADIUS = 1.5
    # Pixels that become proposals, per image and expert, before the pooled NMS.
    cfg.MODEL.FCOS.PRE_NMS_TOPK_TRAIN = 300
    cfg.MODEL.FCOS.PRE_NMS_TOPK_TEST = 200


def _add_roi_heads_keys(cfg: CN) -> None:
    # Proposals are not sampled from this IoU with an uncertain region on, or this share of them inside one; so are
    # RPN's anchors and FCOS's pixels. From this IoU with a hard negative on, a proposal is known to be background.
    cfg.MODEL.ROI_HEADS.IGNORE_IOU = 0.5
    # Rule that weighs background proposals where labels are missing: "OBHS", "OBSS" or "MOBHS" (Lesion-Harvester,
    # Table IV), or "HIGH_SCORES"; empty: all weigh the same. (With MODEL.ROI_HEADS.NUM_CLASSES 2, hard negatives
    # are a class of their own, as in ULDor, and the proposal generator proposes them as well. With NMS_THRESH_TEST
    # 1.0 there is no NMS, even with one stage.)
    cfg.MODEL.ROI_HEADS.MISSING_LABELS = ""


def _add_gate_keys(cfg: CN) -> None:
    # MODEL.ROI_HEADS.NAME "GatedROIHeads": LENS's detection head with a gate, which fuses the experts in the place
    # of NMS. Width of its hidden layer.
    cfg.MODEL.GATE = CN()
    cfg.MODEL.GATE.FC_DIM = 64


def _add_mulan_keys(cfg: CN) -> None:
    # MODEL.ROI_HEADS.NAME "MULANROIHeads" (Yan et al., MICCAI 2019): LENS's detection head and, if they are on, a
    # mask head (MODEL.ROI_MASK_HEAD) that learns from RECIST marks ...
    cfg.MODEL.MULAN = CN()
    cfg.MODEL.MULAN.MASK_ON = False
    # ... and a tag head that learns from the labels of MODEL.EMBEDDING.LABELS, as many as these.
    cfg.MODEL.MULAN.TAG_ON = False
    cfg.MODEL.MULAN.NUM_TAGS = 171
    # Width of the tag head's two FC layers.
    cfg.MODEL.MULAN.TAG_FC_DIM = 1024
    # Weights of both heads' losses (its released configuration; a positive tag weighs at most
    # MODEL.EMBEDDING.MAX_POSITIVE_WEIGHT).
    cfg.MODEL.MULAN.MASK_LOSS_WEIGHT = 1.0
    cfg.MODEL.MULAN.TAG_LOSS_WEIGHT = 1.0


def _add_centernet_keys(cfg: CN) -> None:
    # The head of CECN and of CenterNet (Lesion-Harvester, III-B; numbers of "Objects as Points").
    cfg.MODEL.CENTERNET = CN()
    cfg.MODEL.CENTERNET.IN_FEATURE = "p2"
    # Hidden channels of each of the three outputs.
    cfg.MODEL.CENTERNET.CONV_DIM = 256
    # IoU from which CenterNet's published code derives the radius of a lesion's Gaussian.
    cfg.MODEL.CENTERNET.MIN_OVERLAP = 0.7
    # Smallest radius, in pixels of the feature map.
    cfg.MODEL.CENTERNET.MIN_RADIUS = 0
    # alpha and beta of Eq. 6.
    cfg.MODEL.CENTERNET.ALPHA = 2.0
    cfg.MODEL.CENTERNET.BETA = 4.0
    # Hard negative suppression loss (Eq. 8): hard negatives weigh up to 2 ** BETA times other background.
    cfg.MODEL.CENTERNET.SUPPRESS_HARD_NEGATIVES = True
    # Value of the heatmap at the start of training.
    cfg.MODEL.CENTERNET.PRIOR_PROB = 0.1
    # Weight of the offsets' loss. That of width and height is MODEL.LENS.SIZE_LOSS_WEIGHT.
    cfg.MODEL.CENTERNET.OFFSET_LOSS_WEIGHT = 1.0
    # Peaks of the heatmap that become proposals.
    cfg.MODEL.CENTERNET.TOPK_TRAIN = 300
    cfg.MODEL.CENTERNET.TOPK_TEST = 100


def _add_solver_keys(cfg: CN) -> None:
    # torch.optim's name of the optimizer, or "RAdamW": RAdam (VI-B) as its authors' code has it, with a weight
    # decay that is not part of the gradient.
    cfg.SOLVER.OPTIMIZER = "RAdamW"
    # Length of training in epochs; 0: SOLVER.MAX_ITER and SOLVER.STEPS count instead, as they do if MAX_ITER is
    # among a command's overrides.
    cfg.SOLVER.EPOCHS = 0
    # Epochs after which the learning rate is multiplied by SOLVER.GAMMA.
    cfg.SOLVER.EPOCH_STEPS = ()
    # Parts of a finished detector (MODEL.WEIGHTS) that learn, while the others stay as they are: beginnings of the
    # names of their parameters, such as ("roi_heads.gate",). Empty: all learn.
    cfg.SOLVER.PARTS = ()

    # Project of Weights & Biases to which trainings send their scalars; it needs the package wandb. Empty: none.
    cfg.WANDB = CN()
    cfg.WANDB.PROJECT = ""


def _add_test_keys(cfg: CN) -> None:
    # Whether inference over volumes runs its convolutions and matrix products in bfloat16. Scores and boxes then
    # differ in their third digit.
    cfg.TEST.BF16 = False
    # Slices, interpolated or native, that go through the heads together.
    cfg.TEST.SLICES_PER_BATCH = 8
    # Whether the network looks at the volume's native slices, as in training, or at slices interpolated to
    # INPUT.SLICE_INTERVAL. Either way the neighbours of such a slice are INPUT.SLICE_INTERVAL apart.
    cfg.TEST.NATIVE_SLICES = False
    # Factors by which slices are resized. Detections at several are fused (in the place of Detectron2's TEST.AUG);
    # time grows with their squares. Neither paper does this, and mining takes detections at scale 1 alone.
    cfg.TEST.SCALES = (1.0,)
    # Linker that joins slice boxes into 3D detections, in the LINKER registry: "OverlapLinker" (LENS, IV-C)
    # or "BoxTracker" (Lesion-Harvester, III-B2).
    cfg.TEST.LINKER = "OverlapLinker"
    # 2D boxes below this score are not linked to 3D detections.
    cfg.TEST.LINK_SCORE_THRESH = 0.01
    # OverlapLinker's theta: IoU above which boxes of neighbouring slices are one lesion.
    cfg.TEST.LINK_IOU = 0.5
    # BoxTracker, here and in harvesting. Least IoU with the Kalman filter's prediction at which a box is stacked.
    cfg.TEST.TRACKER = CN()
    cfg.TEST.TRACKER.IOU = 0.8
    # Slices by which a 3D box is extended up and down, and least IoU at which extended boxes that meet are fused.
    cfg.TEST.TRACKER.EXTEND = 1
    cfg.TEST.TRACKER.FUSE_IOU = 0.8
    # Standard deviations in the filter, as parts of a box's size: of a measurement, of the change of a velocity
    # from slice to slice, of the velocity of a new box. The paper names none.
    cfg.TEST.TRACKER.NOISE = (0.05, 0.03, 0.1)
    # Sub-volumes whose overlays are drawn after an evaluation (0: none).
    cfg.TEST.OVERLAYS = 4


def _add_fpr_keys(cfg: CN) -> None:
    # False-positive reduction (IV-D): a classifier that looks at the detections once more. WEIGHTS empty:
    # detections keep LENS's scores. The paper gives no patch size.
    cfg.MODEL.FPR = _classifier("FPR3D", loss="focal", fp_per_tp=2.0)
    # theta: a detection is a true positive above this key-slice IoU with an annotation or a mined one (VI-B) ...
    cfg.MODEL.FPR.TP_IOU = 0.5
    # ... theta_FP: and a false one below this IoU with all of these and with all uncertain regions.
    cfg.MODEL.FPR.FP_IOU = 0.3
    # False positives with a lower detection score are not trained on. The paper names no score below which LENS
    # proposes nothing; here that is TEST.LINK_SCORE_THRESH, and this may raise it for the training alone
    # (docs/classifiers.md).
    cfg.MODEL.FPR.FP_SCORE_THRESH = 0.0
    # A false positive is drawn in proportion to its detection score to this power. 0: all alike.
    cfg.MODEL.FPR.FP_SCORE_POWER = 0.0
    # The final score: the "mean" of the detector's and the classifier's (Eq. 2), or "mean_log_odds".
    cfg.MODEL.FPR.COMBINE = "mean"


def _add_lpc_keys(cfg: CN) -> None:
    # The lesion proposal classifier of Lesion-Harvester (III-C). Its four scales are PATCH_SIZEs of (4, 24, 24),
    # (8, 48, 48), (16, 64, 64), (32, 128, 128) (supplement). The share of marks that each is said to cover fits
    # voxels of INPUT.SLICE_INTERVAL and INPUT.PIXEL_SPACING. What the paper does not give is as in MODEL.FPR.
    cfg.MODEL.LPC = _classifier("GLC_MV", loss="cross_entropy", fp_per_tp=1.0)
    cfg.MODEL.LPC.PATCH_SIZE = (32, 128, 128)
    cfg.MODEL.LPC.PATCH_SPACING = (2.0, 0.8, 0.8)
    cfg.MODEL.LPC.KERNEL_DEPTHS = (3, 3, 3, 3)
    cfg.MODEL.LPC.Z_STRIDES = (1, 2, 2, 2)
    cfg.MODEL.LPC.POOLER_RESOLUTION = (8, 8, 8)


def _classifier(name: str, loss: str, fp_per_tp: float) -> CN:
    """Keys of any registered classifier of detections or proposals, and of its training."""
    node = CN()
    # Name in the CLASSIFIER registry: FPR3D; GLC_MV, GLC, GLC_3D, ResNet_MV, ResNet_3D, MLC3D.
    node.NAME = name
    # Checkpoint of a trained classifier.
    node.WEIGHTS = ""
    # Initial weights of the trunk: a file with a ResNet-18 state_dict, "imagenet", or empty (random). In 3D they
    # are inflated.
    node.BACKBONE_WEIGHTS = "imagenet"
    # Channels of the trunk's first block; 64 is ResNet-18.
    node.WIDTH = 64
    # In 3D: extent along z of the 3x3 kernels in blocks 1 to 4, and strides along z of blocks 2 to 4 (block 1 has
    # none).
    node.KERNEL_DEPTHS = (1, 1, 1, 3)
    node.Z_STRIDES = (1, 1, 1, 1)
    # Voxels of a patch along z, y, x, and mm between them.
    node.PATCH_SIZE = (16, 96, 96)
    node.PATCH_SPACING = (2.0, 1.0, 1.0)
    # HU range that becomes 0..255, and the mean and standard deviation by which that is then normalised.
    node.HU_WINDOW = (-1024.0, 3071.0)
    node.PIXEL_MEAN = 50.0
    node.PIXEL_STD = 50.0
    # Bins along z, y, x of the ROI pooling, and the width of an FC layer (FPR3D: one for each block).
    node.POOLER_RESOLUTION = (3, 3, 3)
    node.FC_DIM = 256
    # GLC_*, ResNet_*: blocks of the trunk that see the patch; their output is pooled from the box.
    node.POOL_AFTER = 2
    # ResNet_*: what they look at, the "box" or the whole "patch" (Lesion-Harvester, Table V).
    node.RESNET_REGION = "box"
    # MLC3D: voxels of its three inputs along z, y, x; PATCH_SIZE does not count.
    node.SCALES = ((4, 24, 24), (8, 48, 48), (16, 64, 64))
    # Name in the CLASSIFIER_LOSS registry: "focal", "cross_entropy".
    node.LOSS = loss
    # Focal loss. An alpha below 0 weighs both classes alike, as their ratio is set by sampling.
    node.FOCAL_ALPHA = -1.0
    node.FOCAL_GAMMA = 2.0
    # False positives per true one in an epoch (LENS VI-B).
    node.FP_PER_TP = fp_per_tp
    # Training augmentation: patches are moved by up to this many mm along x, y, z, and mirrored along x.
    node.SHIFT_MM = (4.0, 4.0, 2.0)
    node.MIRROR = True
    # Detections that go through the network together at inference.
    node.BATCH_SIZE_TEST = 32
    # Its training: takes the place of the same keys of SOLVER. EPOCHS 0: MAX_ITER and STEPS count instead.
    node.SOLVER = _solver("RAdamW", lr=2e-4, weight_decay=5e-4, batch=32, epochs=6, steps=(2, 4))
    return node


def _add_embedding_keys(cfg: CN) -> None:
    # The lesion embedding (V-B), a network like LesaNet.
    cfg.MODEL.EMBEDDING = CN()
    # Checkpoint of a trained network.
    cfg.MODEL.EMBEDDING.WEIGHTS = ""
    # Initial weights of its convolutions: a file with a VGG-16-BN state_dict, "imagenet", or empty (random).
    cfg.MODEL.EMBEDDING.BACKBONE_WEIGHTS = "imagenet"
    # Datasets whose marks have labels, and the files of labels and of their relations (.xlsx or .csv), below the
    # dataset folder unless absolute.
    cfg.MODEL.EMBEDDING.DATASETS = ("deeplesion_train",)
    cfg.MODEL.EMBEDDING.LABELS = "lesanet/text_mined_labels_171_and_split.json"
    cfg.MODEL.EMBEDDING.ONTOLOGY = "lesanet/lesion_ontology_181022.xlsx"
    # Channels of the first stage; 64 is VGG-16.
    cfg.MODEL.EMBEDDING.WIDTH = 64
    # Bins along y and x of the ROI pooling, and the width of the FC layer after it, for each stage.
    cfg.MODEL.EMBEDDING.POOLER_RESOLUTION = 5
    cfg.MODEL.EMBEDDING.FC_DIM = 256
    # Length of the embedding.
    cfg.MODEL.EMBEDDING.DIM = 256
    # Voxels of a patch along z, y, x, and mm between them: 3 slices, box centre +- 60 mm.
    cfg.MODEL.EMBEDDING.PATCH_SIZE = (3, 120, 120)
    cfg.MODEL.EMBEDDING.PATCH_SPACING = (2.0, 1.0, 1.0)
    # HU range that becomes 0..255, and the mean and standard deviation by which that is then normalised.
    cfg.MODEL.EMBEDDING.HU_WINDOW = (-1024.0, 3071.0)
    cfg.MODEL.EMBEDDING.PIXEL_MEAN = 0.0
    cfg.MODEL.EMBEDDING.PIXEL_STD = 255.0
    # Training augmentation: a box's sides move by up to this part of its size.
    cfg.MODEL.EMBEDDING.BOX_JITTER = 0.1
    # Weighted cross-entropy: the most that a positive label weighs.
    cfg.MODEL.EMBEDDING.MAX_POSITIVE_WEIGHT = 300.0
    # Relational hard example mining: power of the difficulty, and draws per batch.
    cfg.MODEL.EMBEDDING.RHEM_POWER = 2.0
    cfg.MODEL.EMBEDDING.RHEM_DRAWS = 10000
    # Triplet loss of the embedding: margin, and triplets per batch.
    cfg.MODEL.EMBEDDING.TRIPLET_MARGIN = 0.1
    cfg.MODEL.EMBEDDING.TRIPLETS = 5000
    # ... whose similar lesions have at least this similarity (the number of labels that they share, times the
    # Jaccard index of their labels) or else are the most similar ones; 0: all that share a label.
    cfg.MODEL.EMBEDDING.MIN_SIMILARITY = 1.0
    # Weights of the losses: cross-entropy, RHEM, triplets, cross-entropy after score propagation.
    cfg.MODEL.EMBEDDING.LOSS_WEIGHTS = (1.0, 1.0, 5.0, 1.0)
    # Lesions that go through the network together at inference.
    cfg.MODEL.EMBEDDING.BATCH_SIZE_TEST = 64
    # Calibration of the matching distance: at least this part of the matches are same-lesion pairs.
    cfg.MODEL.EMBEDDING.CALIBRATION_PRECISION = 0.9
    # Its training, as MODEL.FPR.SOLVER.
    cfg.MODEL.EMBEDDING.SOLVER = _solver("SGD", lr=0.01, weight_decay=1e-4, batch=128, epochs=15, steps=(10,))


def _add_mining_keys(cfg: CN) -> None:
    # Mining of missing annotations (V), when the training of a model is finished.
    cfg.MINING = CN()
    # The strategies, by their names in lens_d2.mining.lens.strategies, in order. Empty: none.
    cfg.MINING.STRATEGIES = ()
    # Datasets that are mined. Empty: those of DATASETS.TRAIN that are partially labelled.
    cfg.MINING.DATASETS = ()
    # theta: IoU above which a proposal and an annotation on one slice are the same lesion.
    cfg.MINING.IOU = 0.5
    # The proposals that cross-slice propagation and intra-patient matching use: "fused" or an expert's name.
    cfg.MINING.PROPOSALS = "fused"

    # Ledgers with a radiologist's verdicts that hold for what is mined: accepted lesions are known, rejected ones
    # hard negatives, and all of them are in the new ledger. Ledgers of earlier rounds need not be named.
    cfg.MINING.REVIEWED = ()
    # Rounds of mining: "train" has the first, the stage "self_training" the others.
    cfg.MINING.ROUNDS = 2

    cfg.MINING.CALIBRATION = CN()
    # Completely annotated part of the mined datasets (V_M of Lesion-Harvester), on which the precision of findings
    # is estimated; this precision is the weight of mined lesions in the losses. The part is mined with its
    # original marks. Empty: nothing is estimated.
    cfg.MINING.CALIBRATION.DATASET = ""
    # Borders, in mm, between the size classes that have estimates of their own, by the longest side of a box.
    cfg.MINING.CALIBRATION.SIZES = (16.0, 24.0, 32.0)
    # A size class with fewer lesions among its findings shares the estimate of all sizes.
    cfg.MINING.CALIBRATION.MIN_LESIONS = 10
    # A new lesion with a lower estimated precision is an uncertain region.
    cfg.MINING.CALIBRATION.LEAST_PRECISION = 0.5


def _add_strategy_keys(cfg: CN) -> None:
    # "SelfTraining": tracklets that match no mark, by the scores of the dataset's own expert and the best other.
    cfg.MINING.SELF_TRAINING = CN()
    # Precision, on MINING.CALIBRATION.DATASET, above the threshold of each stratum (size, expert that agrees).
    cfg.MINING.SELF_TRAINING.PRECISION = 0.9
    # Maximum taken per stratum, as a share of the lesions estimated to be missing there.
    cfg.MINING.SELF_TRAINING.QUOTA = 0.5
    # Candidates that are not taken become uncertain regions from this estimated precision on.
    cfg.MINING.SELF_TRAINING.UNCERTAIN_PRECISION = 0.3
    # Tracklets that the dataset's own expert scores lower are skipped.
    cfg.MINING.SELF_TRAINING.SCORE_THRESH = 0.05

    # "SamePlace": known lesions of a patient's other series, at their place in the body.
    cfg.MINING.SAME_PLACE = CN()
    # Precision, on MINING.CALIBRATION.DATASET, above the threshold of each size class.
    cfg.MINING.SAME_PLACE.PRECISION = 0.9
    # Largest distance between two places, in multiples of the typical one between places of the same lesion.
    cfg.MINING.SAME_PLACE.DISTANCE = 4.0
    # Tracklets that the dataset's own expert scores lower are skipped.
    cfg.MINING.SAME_PLACE.SCORE_THRESH = 0.05

    # "ExpertAgreement": tracklets to which the dataset's own expert and this many others give at least this score.
    cfg.MINING.EXPERT_AGREEMENT = CN()
    cfg.MINING.EXPERT_AGREEMENT.SCORE_THRESH = 0.5
    cfg.MINING.EXPERT_AGREEMENT.EXPERTS = 2

    # "Harvested": the ledger of a round of Lesion-Harvester, and which of its rows are taken: "annotation" (its
    # new lesions), "hard_negative". Those that a radiologist rejected always are.
    cfg.MINING.HARVESTED = CN()
    cfg.MINING.HARVESTED.LEDGER = ""
    cfg.MINING.HARVESTED.STATUSES = ("annotation",)
    # A hard negative is kept only if every expert scores its place lower.
    cfg.MINING.HARVESTED.REJECTED_BELOW = 0.5

    cfg.MINING.INTRA_PATIENT = CN()
    # delta: embedding distance below which two boxes count as one lesion, ...
    cfg.MINING.INTRA_PATIENT.DISTANCE = 0.15
    # ... this value ("fixed"), or calibrated on pairs of marks of known identity ("auto"), at
    # MODEL.EMBEDDING.CALIBRATION_PRECISION.
    cfg.MINING.INTRA_PATIENT.THRESHOLD = "fixed"
    # Tracklets with a lower score are not compared.
    cfg.MINING.INTRA_PATIENT.SCORE_THRESH = 0.0
    # Whether an annotation matches only the nearest of a sub-volume's tracklets, since a lesion occurs there once;
    # otherwise all near ones, often one lesion many times over if the detector proposes a thousand tracklets.
    cfg.MINING.INTRA_PATIENT.NEAREST_ONLY = False

    # "MissingGroundTruth", and then "CrossSlice": MGTM-SLLP, a competing treatment (Lesion-Harvester, Table IV).
    cfg.MINING.MISSING_GROUND_TRUTH = CN()
    # A box on a marked slice is mined above this score, if its tracklet has boxes on at least so many slices.
    cfg.MINING.MISSING_GROUND_TRUTH.SCORE_THRESH = 0.5
    cfg.MINING.MISSING_GROUND_TRUTH.MIN_SLICES = 3

    cfg.MINING.CROSS_DATASET = CN()
    # sigma: a single-type expert's box with a higher score is an uncertain region.
    cfg.MINING.CROSS_DATASET.SCORE_THRESH = 0.5
    # The experts. Empty: those of all fully labelled datasets in DATASETS.TRAIN.
    cfg.MINING.CROSS_DATASET.EXPERTS = ()


def _add_harvest_keys(cfg: CN) -> None:
    # Lesion-Harvester, the stage "harvest"; sections are of that paper.
    cfg.HARVEST = CN()
    # Rounds (K) ...
    cfg.HARVEST.ROUNDS = 3
    # ... fewer if the mean recall on HARVEST.TEST no longer rises (IV-D); False: all of them, as Table I has.
    cfg.HARVEST.STOP_EARLY = True
    # V_M, all lesions marked; one of DATASETS.TRAIN.
    cfg.HARVEST.VERIFIED = "deeplesion_vm"
    # V_H, harvested from. Empty: those of DATASETS.TRAIN that are partially labelled.
    cfg.HARVEST.DATASETS = ()
    # V_H-test: sub-volumes of V_H with all lesions known, for measuring (IV-A).
    cfg.HARVEST.TEST = "deeplesion_vh_test"
    # A trained generator to begin with. Empty: the first round trains one, with SOLVER. (MODEL.LPC.WEIGHTS is the
    # same for the classifier.)
    cfg.HARVEST.WEIGHTS = ""
    # The raw proposals that are stacked, with TEST.TRACKER: "fused" or an expert's name ...
    cfg.HARVEST.PROPOSALS = "fused"
    # ... with at least this score (t_G, III-B2).
    cfg.HARVEST.SCORE_THRESH = 0.1
    # Least IoU of a mark with a proposal's box on the mark's slice at which the proposal hits it (P3D, III-E) ...
    cfg.HARVEST.HIT_IOU = 0.5
    # ... and least IoU of two proposals, on a slice of both, at which they are the same lesion.
    cfg.HARVEST.SAME_IOU = 0.5
    # Proposals are harvested from the smallest score on at which the precision on V_M is above this (III-C).
    cfg.HARVEST.PRECISION = 0.95
    # Hard negatives of V_H: least score of the generator, and how many a sub-volume has at most (III-C).
    cfg.HARVEST.NEGATIVE_SCORE_THRESH = 0.5
    cfg.HARVEST.NEGATIVES_PER_VOLUME = 5
    # ... and the largest s, the product of both scores. The paper sets no limit (1.0); with a lower one, fewer of
    # them are lesions that were not harvested.
    cfg.HARVEST.NEGATIVE_LESION_SCORE_THRESH = 1.0
    # Hard negatives of V_M: with n >= 0 only the n highest of a sub-volume, with at least the score of V_H's;
    # otherwise all, as in the paper.
    cfg.HARVEST.VERIFIED_NEGATIVES_PER_VOLUME = -1
    # Lesions and hard negatives of a round's ledger (Table II): "verified_recovered" (P_M^R), "verified_negatives"
    # (P_M^-), "recovered" (P_H^R), "harvested" (P_H^+), "negatives" (P_H^-).
    cfg.HARVEST.LABELS = ("verified_recovered", "verified_negatives", "recovered", "harvested", "negatives")
    # Whether the best slices of hard negatives join training, or hard negatives stand only on slices of lesions.
    cfg.HARVEST.NEGATIVE_SLICES = True
    # A proposal whose IoU with a known lesion on a common slice reaches this is part of that lesion, and no
    # negative for classifier or generator. Above 1: no limit, as in the paper.
    cfg.HARVEST.NEGATIVE_IOU = 1.1
    # The threshold is found on V_M, where the classifier was trained. With n > 0 folds, n more classifiers are
    # trained, each without one part of V_M's patients, which it then scores. The paper has 0.
    cfg.HARVEST.FOLDS = 0
    # Ledgers of other methods, pairs of a name and a file, such as ("MGTM-SLLP", "ledger.parquet"): measured as
    # the harvest is, each a row of Table I and a curve of Fig. 8a.
    cfg.HARVEST.OTHER_LEDGERS = ()

    # Training from the second round on, which starts from the last round's weights (Fig. 2): takes the place of
    # the same keys of SOLVER for the generator ...
    cfg.HARVEST.FINETUNE = _finetuning(lr=1e-5, epochs=2)
    # ... and of MODEL.LPC.SOLVER for the classifier. Without FINETUNE_CLASSIFIER it is trained anew in each round.
    cfg.HARVEST.FINETUNE_CLASSIFIER = True
    cfg.HARVEST.FINETUNE_LPC = _finetuning(lr=2e-5, epochs=2)


def _finetuning(lr: float, epochs: int) -> CN:
    """The keys of SOLVER that a fine-tuning has of its own. EPOCHS 0: MAX_ITER and STEPS count instead."""
    return CN({"BASE_LR": lr, "EPOCHS": epochs, "EPOCH_STEPS": (), "MAX_ITER": 0, "STEPS": ()})


def _solver(optimizer: str, lr: float, weight_decay: float, batch: int, epochs: int, steps: tuple[int, ...]) -> CN:
    """The keys of SOLVER that each network other than the detector has of its own."""
    return CN(
        {
            "OPTIMIZER": optimizer,
            "BASE_LR": lr,
            "WEIGHT_DECAY": weight_decay,
            "IMS_PER_BATCH": batch,
            "EPOCHS": epochs,
            "EPOCH_STEPS": steps,
            "MAX_ITER": 0,
            "STEPS": (),
            "GAMMA": 0.1,
            "WARMUP_ITERS": 0,
            "CHECKPOINT_PERIOD": 1000,
        }
    )
