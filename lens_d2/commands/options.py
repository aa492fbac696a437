"""Options of every command.

Each function of :data:`COMMANDS` declares those of the command that bears its name, and its docstring is what
``--help`` says. This module imports nothing that is slow.
"""

from __future__ import annotations

import argparse
import inspect
import math
import os
from collections.abc import Callable
from pathlib import Path

from .. import __version__

DEFAULT_MODEL = "phantom/lens_best"  # of the model zoo, for predictions
PROTOCOLS = ("lens3d", "p3d", "luna16")
FORMATS = ("coco", "monai", "monai_ras", "nndetection", "table")  # of other programs' boxes
Parser = argparse.ArgumentParser


def get_parser() -> Parser:
    """Make the parser of ``lens-d2``; ``command`` is the name of the command that was given."""
    parser = Parser(
        prog="lens-d2",
        description="Universal lesion detection in CT. Research use only. Not a medical device.",
        epilog="lens-d2 COMMAND --help tells the options of one.",
    )
    parser.add_argument("--version", action="version", version=f"lens_d2 {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for declare in COMMANDS:
        text = inspect.getdoc(declare) or ""
        command = commands.add_parser(
            declare.__name__,
            help=text.splitlines()[0],
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        declare(command)
    return parser


# Shared by commands


def add_config_file(
    parser, help: str = "its INPUT keys and DATASETS.READERS count; else the project's defaults", **keys
) -> None:
    """Add ``--config-file``."""
    parser.add_argument("--config-file", metavar="FILE", help=help, **keys)


def add_overrides(parser: Parser) -> None:
    """Add config overrides, which stand last."""
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        action="extend",
        metavar="KEY VALUE",
        help="overrides of the config; they stand last",
    )


def add_output(parser, help: str = "folder for the results", **keys) -> None:
    """Add ``--output``."""
    parser.add_argument("--output", "--output-dir", type=_path, metavar="DIR", help=help, **keys)


def _path(text: str) -> Path:
    """Path of a command line; an empty one, of a variable that is not set, is not the current folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty path")
    return Path(text)


def add_root(parser) -> None:
    """Add ``--root``."""
    text = "folder of the datasets (default: $DETECTRON2_DATASETS, or ./datasets)"
    parser.add_argument("--root", metavar="DIR", help=text)


def add_workers(parser: Parser, default: int) -> None:
    """Add ``--workers``."""
    text = "processes side by side (default: %(default)s)"
    parser.add_argument("--workers", "--processes", type=int, default=default, metavar="N", help=text)


def add_ranks(parser: Parser) -> None:
    """Add Detectron2's options of processes; all are 1 or 0 unless given."""
    parser.add_argument("--num-gpus", type=int, metavar="N", help="processes of this machine, one a GPU")
    parser.add_argument("--num-machines", type=int, default=1, metavar="N", help="default: %(default)s")
    parser.add_argument("--machine-rank", type=int, default=0, metavar="N", help="of this machine, from 0")
    # Detectron2's port: the same for a user every time, so that processes left behind show by an occupied port.
    user = os.getuid() if hasattr(os, "getuid") else 1
    url = f"tcp://127.0.0.1:{2**15 + 2**14 + hash(user) % 2**14}"
    parser.add_argument("--dist-url", default=url, metavar="URL", help="of the first machine's process group")


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not in (0, 1]")
    return value


def _rate(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is not a number")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def _some(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return int(text)


# The commands


def train(parser: Parser) -> None:
    """Train and evaluate a universal lesion detector.

        lens-d2 train --config-file configs/lens_multi.yaml --num-gpus 8
        lens-d2 train --config-file configs/lens_multi.yaml --eval-only MODEL.WEIGHTS model_final.pth
        lens-d2 train --config-file configs/lens_full.yaml --resume
        torchrun --nproc-per-node 8 -m lens_d2 train --config-file configs/lens_full.yaml

    The options are those of every Detectron2 project.
    """
    add_config_file(parser, "config of the training; a name below configs/ means the package's own", default="")
    parser.add_argument("--resume", action="store_true", help="go on where OUTPUT_DIR's training stopped")
    parser.add_argument("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS on DATASETS.TEST")
    add_ranks(parser)
    add_overrides(parser)


def predict(parser: Parser) -> None:
    """Find lesions in CT scans and write what people and programs open.

        lens-d2 predict --input scan.nii.gz --output out
        lens-d2 predict --config-file configs/lens_multi.yaml --input scans --output out MODEL.WEIGHTS lens.pth

    INPUT is a NIfTI, MetaImage or NRRD file, a folder of DICOM files (--series picks one of several series), a
    DICOM file of many frames, a folder of DeepLesion's PNG slices (with --spacing), or a folder that holds any
    of these: then all are run, each into a folder of its own under OUTPUT, and scans.csv lists them and what
    cannot be used: by their number in the order of their paths, or by name with --keep-ids. Without it, no
    output or message holds the name of a file or folder below INPUT, nor free text of DICOM headers, but for one
    list on the console: where INPUT is a DICOM folder of several series or parts, of which --series is to pick
    one, their UIDs, numbers of images, modalities, descriptions and differences are shown. In every folder:
    report.html to look at, detections.csv and .json, detections.mrk.json for 3D Slicer, detections.nii.gz for
    ITK-SNAP, and for DICOM detections.dcm, a structured report, and detections.seg.dcm, a segmentation.

        lens-d2 predict --input archive --output out --num-gpus 8 --resume

    With --num-gpus or torchrun, processes divide the scans among them; each reads its next scan while it works on
    this one. --resume skips scans whose outputs are complete and come from the same input, options and weights;
    they keep their numbers, and others get those that are free.

    Without --config-file and --model the package's own weights are used. They have learned from synthetic
    patients alone: they show how everything works, and their detections in a patient's scan mean nothing.

    Exit code: 0; 1 if scans of a folder failed; 2 if the only scan or the options are at fault; 75 if a signal
    asked to stop (docs/scaling.md), and the same command with --resume goes on.

    Research use only. Not a medical device.
    """
    which = parser.add_mutually_exclusive_group()
    add_config_file(which, "config that the weights were trained with")
    which.add_argument("--model", metavar="NAME", help=f"of the model zoo (default: {DEFAULT_MODEL})")
    parser.add_argument("--input", type=_path, required=True, metavar="SCAN", help="a scan, or a folder of scans")
    add_output(parser, required=True)
    parser.add_argument(
        "--series",
        metavar="UID",
        help="SeriesInstanceUID of the DICOM series to run; UID:1, UID:2, ... for a part of a series that holds "
        "several acquisitions, phases or shapes of slices",
    )
    parser.add_argument(
        "--fill-gaps",
        action="store_true",
        help="interpolate where one or two slices of a DICOM series are missing, instead of refusing it",
    )
    parser.add_argument(
        "--spacing",
        nargs=3,
        type=_number,
        metavar=("X", "Y", "Z"),
        help="mm, for PNG slices; Z < 0: towards the feet",
    )
    parser.add_argument(
        "--score-threshold",
        type=_number,
        metavar="S",
        help="leave out detections below it (default: the weights' last operating point, or 0.1)",
    )
    parser.add_argument(
        "--max-detections",
        type=_count,
        default=100,
        metavar="N",
        help="keep at most the best N (default %(default)s)",
    )
    parser.add_argument(
        "--keep-ids",
        action="store_true",
        help="let outputs and messages carry names of files and folders, and the patient's name and id",
    )
    parser.add_argument(
        "--allow-random-weights", action="store_true", help="run a config without MODEL.WEIGHTS, to try the tool"
    )
    parser.add_argument("--resume", action="store_true", help="of several scans, run those without whole outputs")
    add_ranks(parser)
    parser.add_argument(
        "--opts",
        nargs=argparse.REMAINDER,
        action="extend",
        default=[],
        help="as in Detectron2's demo; may be left out",
    )
    add_overrides(parser)


def evaluate(parser: Parser) -> None:
    """Score detections under a published protocol, with confidence intervals and curves.

        lens-d2 evaluate --protocol lens3d --ground-truth FILE --predictions FILE --output DIR

    docs/evaluation.md has the protocols, the layouts of files and all that is written.
    """
    add_protocol(parser)
    parser.add_argument("--predictions", required=True, metavar="FILE", help="JSON, pickle or CSV, or a folder")
    parser.add_argument("--attributes", metavar="CSV", help="lesions' diameter_mm, type, organ, thickness_mm")
    parser.add_argument(
        "--annotations", metavar="FILE", help="p3d: report the recall of these marks at precision 100%%"
    )
    parser.add_argument("--coco", action="store_true", help="also write truth and predictions as COCO JSON")


def compare(parser: Parser) -> None:
    """Compare two detectors on the same truth.

        lens-d2 compare --protocol lens3d --ground-truth FILE --predictions A B --output DIR

    Tells the difference of their average sensitivities, its 95% interval and p-value, from a bootstrap that
    draws the same volumes for both. Writes comparison.json and froc.png with both curves.
    """
    add_protocol(parser)
    parser.add_argument("--predictions", required=True, nargs=2, metavar=("A", "B"))
    text = "of the two in tables and plot (default: those of the files)"
    parser.add_argument("--names", nargs=2, metavar=("A", "B"), help=text)


def add_protocol(parser: Parser) -> None:
    """Add the options that choose a protocol and its truth, and the folder of results."""
    parser.add_argument("--protocol", required=True, choices=PROTOCOLS, metavar="NAME", help=", ".join(PROTOCOLS))
    parser.add_argument("--ground-truth", required=True, metavar="FILE", help="pickle, JSON or CSV")
    add_output(parser, required=True)
    parser.add_argument("--split", choices=("train", "val", "test"), help="part to take of a file that has these")
    parser.add_argument(
        "--metric", choices=("IOU", "IOBB", "IOGT", "IOBBGT"), help="lens3d's overlap (default IOBB)"
    )
    parser.add_argument("--threshold", type=_share, help="least overlap of a hit (lens3d 0.3, p3d 0.5)")
    parser.add_argument(
        "--box-order",
        choices=("xyzxyz", "xyxyzz"),
        help="lens3d: columns of the truth's boxes; xyxyzz is 3D-Box.pkl's, with z from 0 in the sub-volume",
    )
    text = "of predictions of another program (default: by content)"
    parser.add_argument("--format", choices=FORMATS, metavar="NAME", help=f"{text}: {', '.join(FORMATS)}")
    parser.add_argument("--truth-format", choices=FORMATS, metavar="NAME", help="of the truth, likewise")
    parser.add_argument("--images", metavar="FILE", help="COCO's dataset, for results (default: the truth)")
    parser.add_argument("--scans", metavar="DIR", help="scans by volume, if boxes are in mm and the truth is not")
    parser.add_argument("--excluded", metavar="FILE", help="luna16: excluded findings")
    parser.add_argument("--seriesuids", metavar="FILE", help="luna16: the series of the evaluation")
    parser.add_argument("--fps", type=_rate, nargs="+", help="false positives per volume to read the curve at")
    parser.add_argument("--bootstrap", type=_count, default=1000, metavar="N", help="draws (default %(default)s)")
    parser.add_argument("--seed", type=_count, default=0, help="of the draws (default %(default)s)")


def prepare(parser: Parser) -> None:
    """Check datasets and preprocess their volumes into the cache, once, before training.

        lens-d2 prepare deeplesion_train luna_train luna_val
        lens-d2 prepare --config-file configs/lens_multi.yaml --workers 8
        lens-d2 prepare                            (all datasets but the synthetic ones)

    With --sweep, cache files that nothing reads any more are removed afterwards: those made with other INPUT
    keys than the config's, and those whose source has changed or is gone. Other datasets' files of the same
    keys stay.

    Every sound sub-volume is prepared. The others are listed with their faults, on the screen and under
    cache/left_out/ in the datasets' folder, and are left out whenever the dataset is used; run this again when
    they have been repaired. What is sound but odd (values that cannot be HU, a mask that does not meet its CT)
    is used, and listed on the screen and under cache/warned_of/. The exit status is 0 if nothing was left out,
    1 if something was, 2 for a wrong call.
    """
    text = "datasets; else those of the config file; else all real ones"
    parser.add_argument("names", nargs="*", metavar="NAME", help=text)
    add_config_file(parser, "its DATASETS and INPUT keys count; else the project's defaults")
    add_root(parser)
    parser.add_argument("--cache-dir", metavar="DIR", help="folder of the volume cache; else INPUT.CACHE_DIR")
    add_workers(parser, os.cpu_count() or 1)
    parser.add_argument("--sweep", action="store_true", help="remove superseded cache files, and list them")


def phantom(parser: Parser) -> None:
    """Write the synthetic cohort: four datasets in their real file formats, with the full truth beside them.

        lens-d2 phantom --size small --seed 7 --output datasets/phantom

    docs/phantom.md describes its patients, lesions and files.
    """
    root = Path(os.environ.get("DETECTRON2_DATASETS", "datasets"))
    add_output(parser, "folder to write (default: %(default)s)", default=root / "phantom")
    sizes = ("tiny", "small", "standard", "study", "large")
    parser.add_argument("--size", choices=sizes, default="small", help="a ready size (default: %(default)s)")
    for name in ("train", "val", "test"):
        text = f"{name} patients of the universal dataset, instead of the size's"
        parser.add_argument(f"--{name}", type=int, metavar="N", help=text)
    for name in ("luna", "lits", "nih-ln"):
        parser.add_argument(
            f"--{name}", type=int, metavar="N", help="scans of this dataset, instead of the size's"
        )
    text = "pixels a side, a multiple of 16, instead of the size's"
    parser.add_argument("--matrix", type=int, metavar="N", help=text)
    text = "faintness of lesions, noise (default: %(default)s)"
    parser.add_argument("--difficulty", choices=("easy", "medium", "hard"), default="medium", help=text)
    text = "sets how much interest a mark needs: about this share of lesions gets none (default: %(default)s)"
    parser.add_argument("--missing-rate", type=float, default=0.75, metavar="SHARE", help=text)
    parser.add_argument("--seed", type=_count, default=0, help="default: %(default)s")
    add_workers(parser, min(os.cpu_count() or 1, 8))
    parser.add_argument("--overwrite", action="store_true", help="replace a cohort that is there")


def review(parser: Parser) -> None:
    """Let a radiologist judge what mining has proposed, and take the verdicts back into the ledger.

        lens-d2 review output/lens_full/train/mining/ledger.parquet --dataset deeplesion_train
        lens-d2 review output/lens_full/train/mining/ledger.parquet --apply ledger_verdicts.json

    The first writes a page that opens in any browser, without a network: proposals one at a time, the likeliest
    first, with keys for the verdicts, which the page saves as a file. The second makes these verdicts the
    status of the rows: an accepted proposal is trained on as a lesion, a rejected one as a hard negative, an
    unsure one is left out of the losses. --queue informative --limit 100 asks where a hundred verdicts bring most.
    """
    parser.add_argument("ledger", type=Path, metavar="LEDGER", help=".parquet or .csv")
    text = (
        "the page (default: review.html beside the ledger), or with --apply the new ledger (default: the old one)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help=text)
    page = parser.add_argument_group("writing the page")
    page.add_argument("--dataset", nargs="+", metavar="NAME", help="registered names of the mined datasets")
    add_root(page)
    add_config_file(page)
    page.add_argument("--all", action="store_true", help="show what has been judged before, too")
    text = "show only what this strategy has found; may be repeated"
    page.add_argument("--strategy", action="append", metavar="NAME", help=text)
    text = "by score, or those first whose verdicts are expected to change most (default: %(default)s)"
    page.add_argument("--queue", choices=("score", "informative"), default="score", help=text)
    text = "the first N of the queue (default: %(default)s)"
    page.add_argument("--limit", type=_count, default=5000, metavar="N", help=text)
    applying = parser.add_argument_group("applying verdicts")
    applying.add_argument("--apply", type=Path, metavar="VERDICTS", help="file that the page has given")


def ledger(parser: Parser) -> None:
    """Check a ledger of mined annotations against its datasets, count what it adds, or convert it.

        lens-d2 ledger check output/lens_full/train/mining/ledger.csv --dataset deeplesion_train
        lens-d2 ledger counts output/lens_full/train/mining/ledger.parquet --dataset deeplesion_train
        lens-d2 ledger convert ledger.parquet ledger.csv

    counts prints the columns of LENS's Table III. An edited ledger is trained on with DATASETS.LEDGER. One that
    contradicts itself or its datasets is refused in one line that names the row, with the status 2.
    """
    actions = parser.add_subparsers(dest="action", required=True)
    for name in ("check", "counts"):
        action = actions.add_parser(name)
        action.add_argument("ledger", metavar="LEDGER", help=".parquet or .csv")
        text = "registered names of what was mined"
        action.add_argument("--dataset", required=True, nargs="+", metavar="NAME", help=text)
        add_root(action)
        add_config_file(action, "config whose DATASETS.READERS count")
    convert = actions.add_parser("convert")
    convert.add_argument("ledger", metavar="LEDGER", help=".parquet or .csv")
    convert.add_argument("output", metavar="OUTPUT", help=".csv or .parquet")


def visualize(parser: Parser) -> None:
    """Draw the samples that training gets, with the boxes that are known on them.

        lens-d2 visualize phantom_deeplesion_train --config-file configs/phantom/lens_multi.yaml
        lens-d2 visualize deeplesion_train --ledger output/lens_full/train/mining/ledger.parquet --augment

    Writes sheets of PNG, samples_01.png and so on: the central slice of each sample as the mapper makes it,
    with annotations, mined annotations, uncertain regions and hard negatives in colours of their own. With a
    ledger, every second sample is a slice of it.
    """
    parser.add_argument("datasets", nargs="+", metavar="NAME", help="registered name of a dataset")
    add_config_file(parser)
    add_root(parser)
    parser.add_argument("--ledger", metavar="FILE", help="of mined boxes, .parquet or .csv")
    parser.add_argument("--augment", action="store_true", help="with the augmentation of training")
    parser.add_argument("--num", type=_some, default=12, metavar="N", help="samples (default: %(default)s)")
    parser.add_argument("--seed", type=_count, default=0, help="of the choice of samples and of the augmentation")
    add_output(parser, "default: output/visualize/<first dataset>")


def embedding(parser: Parser) -> None:
    """Train the lesion embedding, and calibrate the distance below which two boxes are one lesion.

        lens-d2 embedding --config-file configs/phantom/lens_full.yaml
        lens-d2 embedding --config-file ... --eval-only MODEL.EMBEDDING.WEIGHTS model_final.pth

    Writes model_final.pth, to be given as MODEL.EMBEDDING.WEIGHTS, and calibration.json to
    OUTPUT_DIR/embedding.
    """
    add_config_file(parser, "config of the run", required=True)
    parser.add_argument("--resume", action="store_true", help="go on where OUTPUT_DIR's training stopped")
    parser.add_argument("--eval-only", action="store_true", help="calibrate MODEL.EMBEDDING.WEIGHTS alone")
    add_ranks(parser)
    add_overrides(parser)


def zoo(parser: Parser) -> None:
    """List the trained weights that come with the package, or show the model card of one.

        lens-d2 zoo
        lens-d2 zoo phantom/lens_multi

    In a config, MODEL.WEIGHTS lens_d2://phantom/lens_multi names them.
    """
    parser.add_argument("name", nargs="?", metavar="NAME", help="such as phantom/lens_multi")


def setup(parser: Parser) -> None:
    """Install Detectron2 beside this package, once after `pip install` of it.

        lens-d2 setup

    Detectron2 publishes no wheel of a release. This installs a hash-pinned wheel with the Python source of one of
    its commits; its compiled operators are not used.
    """


COMMANDS: tuple[Callable[[Parser], None], ...] = (
    predict,
    train,
    evaluate,
    compare,
    prepare,
    phantom,
    visualize,
    review,
    ledger,
    embedding,
    zoo,
    setup,
)
