"""The commands that the documentation advertises: found in its text, and run as a user would run them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ["README.md", "MODEL_ZOO.md", "CONTRIBUTING.md", "CHANGELOG.md", "datasets/README.md"]
DOCUMENTS += sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/*.md"))


def commands_in(path: str) -> list[str]:
    """Each line of the blocks of bash, and what stands in code as `python ...`, without comments."""
    text = (ROOT / path).read_text()
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    inline = re.findall(r"`((?:[A-Z_0-9]+=\S+ )?python [^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    commands = (" ".join(re.sub(r"\s#\s.*", "", line).split()) for line in [*lines, *inline])
    return [command for command in commands if command]


def spelled_out(options: str) -> str:
    """Options as docs/detectors.md has them, with what its shorthands stand for."""
    text = " ".join((ROOT / "docs/detectors.md").read_text().split())
    for name, meaning in reversed(re.findall(r"`(TRAINED_ON_\w+)` stands for `(.+?)`", text)):
        options = options.replace(name, meaning)
    return options


class Advertised(NamedTuple):
    """A command of a document.

    Attributes:
        document: where it stands.
        part: of it, that no other command there has; all of it, if others begin with it.
        short: what is added at its end, so that it takes a moment.
    """

    document: str
    part: str
    short: str = ""

    @property
    def command(self) -> str:
        """As it stands in the document."""
        found = {command for command in commands_in(self.document) if self.part in command}
        (command,) = found & {self.part} or found
        return command

    @property
    def line(self) -> str:
        """As it is run."""
        return f"{self.command} {self.short}"


NETWORK = (
    "MODEL.DENSENET.WEIGHTS '' MODEL.DENSENET.GROWTH_RATE 4 MODEL.DENSENET.BLOCK_CONFIG (2,2,2) "
    "MODEL.DENSENET.INIT_FEATURES 8 MODEL.DENSENET.OUT_CHANNELS 16 MODEL.AFP.CONV_DIM 8 "
    "MODEL.CENTERNET.CONV_DIM 8 MODEL.ROI_BOX_HEAD.FC_DIM 16 "
    "INPUT.PIXEL_SPACING 4.0 INPUT.SLICE_INTERVAL 6.0 SEED 1"
)
TRAINING = (
    f"{NETWORK} SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_ITER 2 SOLVER.STEPS () SOLVER.CHECKPOINT_PERIOD 2 VIS_PERIOD 0 "
    "TEST.OVERLAYS 0 TEST.DETECTIONS_PER_IMAGE 5"
)
SHORT = f"{TRAINING} DATALOADER.NUM_WORKERS 0"
REAL = f"{SHORT} SOLVER.EPOCHS 0 DATASETS.TEST \"('luna_val',)\""
DEMO_TEST = "DATASETS.TEST \"('phantom_deeplesion_1k_test',)\""
ONE_TEST = "DATASETS.TEST \"('phantom_luna_val',)\""
MINED = f"STAGES \"('train',)\" MINING.STRATEGIES \"('CrossSlice',)\" {ONE_TEST}"


def classifier(name: str, patch: str) -> str:
    keys = f"WIDTH 4 FC_DIM 8 PATCH_SIZE {patch} SOLVER.IMS_PER_BATCH 4 SOLVER.MAX_ITER 2 SOLVER.STEPS ()"
    keys += " SOLVER.CHECKPOINT_PERIOD 2"
    words = keys.split()
    pairs = zip(words[::2], words[1::2], strict=True)
    return " ".join(f"MODEL.{name}.{key} {value}" for key, value in pairs)


CLASSIFIERS = f"{classifier('EMBEDDING', '(3,24,24)')} {classifier('FPR', '(8,24,24)')}"
FULL = f"{SHORT} {CLASSIFIERS} {ONE_TEST} MINING.CROSS_DATASET.SCORE_THRESH 0.56"
BEST = f"{SHORT} {CLASSIFIERS} {ONE_TEST} MINING.IOU 0.02 MINING.SELF_TRAINING.UNCERTAIN_PRECISION 0.0"
BEST += " MODEL.FPR.TP_IOU 0.02 MODEL.FPR.FP_IOU 0.019"
HARVEST = f"{SHORT} {classifier('LPC', '(8,24,24)')} HARVEST.ROUNDS 1 HARVEST.HIT_IOU 0.001"

COARSE = "INPUT.PIXEL_SPACING 4.0 INPUT.SLICE_INTERVAL 6.0 TEST.SCALES (1.0,) TEST.OVERLAYS 0"

REVIEW = "python tools/review.py ledger.parquet --dataset phantom_deeplesion_train"

# What tests/test_advertised.py runs, by what a user is about, in this order.
RUN = {
    "demo": (
        Advertised("docs/getting_started.md", "--eval-only MODEL.WEIGHTS output/demo", f"{SHORT} {DEMO_TEST}"),
        Advertised("README.md", "demo/predict.py", f"{NETWORK} TEST.DETECTIONS_PER_IMAGE 5"),
        Advertised("README.md", "lens-d2 predict"),
    ),
    "the model zoo": (Advertised("MODEL_ZOO.md", "lens-d2 zoo"), Advertised("MODEL_ZOO.md", "--model")),
    "real data": (
        Advertised("README.md", "python datasets/prepare_datasets.py --config-file", "--processes 1"),
        Advertised("datasets/README.md", "python datasets/prepare_datasets.py --config-file", "--processes 1"),
        Advertised("datasets/README.md", "prepare_datasets.py deeplesion_train", "--processes 1"),
        Advertised("datasets/README.md", "python datasets/prepare_datasets.py", "--processes 1"),
        Advertised("README.md", "python train_net.py --config-file configs/lens_multi.yaml", REAL),
        Advertised("README.md", "configs/lens_multi.yaml --resume", REAL),
        Advertised("README.md", "configs/lens_multi.yaml --eval-only", REAL),
        Advertised("README.md", "configs/lens_multi.yaml SOLVER.BASE_LR", f"{REAL} DATASETS.TEST ()"),
        Advertised("docs/detectors.md", "GatedROIHeads SOLVER.PARTS", REAL),
    ),
    "lens_full": (
        Advertised("docs/mining.md", "python train_net.py --config-file configs/phantom/lens_full.yaml", FULL),
        Advertised("docs/mining.md", "configs/phantom/lens_full.yaml --eval-only", FULL),
        Advertised("docs/mining.md", "configs/phantom/lens_full.yaml --input", FULL),
        Advertised("docs/classifiers.md", "MODEL.FPR.NAME GLC_MV", f"{FULL} STAGES \"('fpr',)\""),
    ),
    "lens_best": (
        Advertised("docs/mining.md", "configs/phantom/lens_best.yaml", BEST),
        Advertised("docs/mining.md", "-m experiments verdicts", "--counts 2"),
    ),
    "finer pixels": (Advertised("docs/results.md", "hidden_truth.py", f"{SHORT} MODEL.WEIGHTS '' {ONE_TEST}"),),
    "few patients": (Advertised("docs/results.md", "MODEL.DENSENET.NORM FrozenBN", f"{SHORT} {ONE_TEST}"),),
    "other patients": (Advertised("docs/results.md", "--eval-only", COARSE),),
    "a ledger": (
        Advertised("docs/mining.md", "tools/ledger.py check"),
        Advertised("docs/mining.md", "tools/ledger.py counts"),
        Advertised("docs/mining.md", "tools/ledger.py convert"),
        Advertised("docs/mining.md", "tools/visualize_data.py", "--num 4"),
        Advertised("docs/mining.md", REVIEW, "--limit 10"),
        Advertised("docs/mining.md", "--queue informative"),
        Advertised("docs/mining.md", "tools/review.py ledger.parquet --apply"),
        Advertised("docs/mining.md", "-m experiments mined"),
    ),
    "harvester": (Advertised("docs/harvesting.md", "configs/phantom/harvester.yaml", HARVEST),),
    "what was harvested": (
        Advertised("docs/harvesting.md", "STAGES \"('retrain',)\"", SHORT),
        Advertised("docs/harvesting.md", "-m experiments mined"),
    ),
    # With the configs' own workers of the loaders.
    "two ranks": (
        Advertised(
            "docs/scaling.md",
            "torchrun --nproc-per-node 8",
            f"{TRAINING} {MINED} SOLVER.EPOCHS 0 DATASETS.TEST \"('luna_val',)\"",
        ),
    ),
}
