"""The README's picture: what it shows is drawn, and it is small."""

import shutil

import numpy as np
import pytest
from helpers.handmade_scan import make_scan, report, scan  # noqa: F401
from PIL import Image

from experiments.picture import BROWSERS, MAX_BYTES, WIDTH, take_picture
from lens_d2.export import HtmlReport
from lens_d2.io.errors import DataError


@pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="needs chromium")
def test_the_picture_shows_the_slice(report, tmp_path):  # noqa: F811
    page = tmp_path / "report.html"
    page.write_bytes(HtmlReport().render(report))
    take_picture(page, tmp_path / "report.jpg")
    picture = Image.open(tmp_path / "report.jpg")
    assert picture.width == WIDTH and (tmp_path / "report.jpg").stat().st_size <= MAX_BYTES
    viewer = np.asarray(picture.convert("L"))[250:500, 100:350]
    assert viewer.mean() > 60  # soft tissue, not an empty canvas


def test_without_a_browser_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.picture.shutil.which", lambda _: None)
    with pytest.raises(DataError, match="chromium: is not installed"):
        take_picture(tmp_path / "report.html", tmp_path / "report.jpg")
