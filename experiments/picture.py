"""Takes the picture of a scan's report that README.md shows.

    python -m experiments picture --config-file configs/phantom/lens_multi.yaml --input scan.nii.gz \\
        --opts MODEL.WEIGHTS output/demo/model_final.pth

Writes ``docs/report.jpg``. Needs chromium.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

from lens_d2.config import load_config
from lens_d2.export import HtmlReport
from lens_d2.io.errors import DataError
from lens_d2.io.files import whole_file, write_whole
from lens_d2.lesion_detector import LesionDetector

WINDOW = (1400, 1240)  # CSS pixels of the page
WIDTH = 1080  # pixels of the picture
MAX_BYTES = 190_000
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WAIT = 10_000  # ms that the page has for drawing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--config-file", required=True, metavar="FILE", help="config of the weights")
    parser.add_argument("--input", required=True, metavar="SCAN", help="a scan of which no patient is seen")
    parser.add_argument("--output", type=Path, default=Path("docs/report.jpg"), help="picture to write")
    parser.add_argument("--max-detections", type=int, default=100, metavar="N", help="the best N are shown")
    parser.add_argument(
        "--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="config overrides"
    )


def take_picture(page: Path, picture: Path) -> None:
    """Photograph the upper part of a page.

    Args:
        page: an HTML file.
        picture: JPEG to write, at most :data:`MAX_BYTES`.

    Raises:
        DataError: there is no browser, or it fails.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise DataError(BROWSERS[0], "is not installed, and the picture is taken with it")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "page.png"
        size = ",".join(map(str, WINDOW))
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={size}"]
        options += [f"--virtual-time-budget={WAIT}", f"--screenshot={shot}", f"--user-data-dir={folder}/profile"]
        done = subprocess.run([browser, *options, page.resolve().as_uri()], capture_output=True, text=True)
        if not shot.exists():
            raise DataError(browser, f"took no picture: {done.stderr.strip()[-300:]}")
        image = Image.open(shot).convert("RGB")
    image = image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS)
    with whole_file(picture) as temporary:
        for quality in range(90, 30, -5):
            image.save(temporary, "JPEG", quality=quality, optimize=True)
            if temporary.stat().st_size <= MAX_BYTES:
                break


def run(args: argparse.Namespace) -> None:
    """Look for lesions in the scan, and photograph the report."""
    detector = LesionDetector(load_config(args.config_file, args.opts))
    findings = detector(args.input, max_detections=args.max_detections)
    with tempfile.TemporaryDirectory() as folder:
        page = write_whole(Path(folder) / HtmlReport.file_name, HtmlReport().render(findings.report))
        take_picture(page, args.output)
    print(f"{args.output}: {len(findings)} detections, {args.output.stat().st_size} bytes")
