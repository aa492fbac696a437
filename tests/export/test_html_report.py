"""The page as a file: complete, self-contained, careful with what it shows."""

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from lens_d2.evaluation.operating_points import OperatingPoints
from lens_d2.export import HtmlReport, html_report
from lens_d2.export.html_report import describe_position
from lens_d2.structures.detections import VolumeDetections
from lens_d2.visualization.planes import level_table

VOID = {"meta", "link", "img", "input", "br", "hr"}


class Page(HTMLParser):
    """Checks that tags close in order, and collects attributes by tag."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tags, self.ids = [], {}, []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.setdefault(tag, []).append(attributes)
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def words_of(page: bytes) -> str:
    """A page without its pictures, in whose base64 any word can occur."""
    return re.sub(r"[A-Za-z0-9+/=]{120,}", "", page.decode())


@pytest.fixture(scope="module")
def text(report):
    return HtmlReport().render(report).decode()


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_page_is_well_formed_and_every_link_leads_somewhere(page):
    assert len(page.ids) == len(set(page.ids))
    targets = [a["href"] for a in page.tags["a"]]
    assert targets and all(target.startswith("#") and target[1:] in page.ids for target in targets)
    assert all(image["alt"] for image in page.tags["img"])
    labels = {label.get("for") for label in page.tags["label"]}
    assert "score" in labels


def test_page_needs_no_network(text, page):
    (policy,) = [meta["content"] for meta in page.tags["meta"] if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in page.tags["img"])
    assert not re.search(r"https?://|url\(|@import|<iframe|fetch\(", text)


def test_every_detection_has_a_row_a_card_and_boxes(page, report):
    for detection in report.detections:
        assert f"finding-{detection.number}" in page.ids
        numbered = [a for a in page.tags["a"] if a.get("data-number") == str(detection.number)]
        assert len(numbered) == 2  # on both projections; the script adds those on the slices
        rows = [row for row in page.tags["tr"] if row.get("data-number") == str(detection.number)]
        assert [float(row["data-score"]) for row in rows] == [detection.score]


def test_page_says_what_it_is_and_what_made_it(text):
    assert text.count("Not a medical device") == 2
    for words in (
        "test.yaml",
        "model.pth",
        "40 × 36, 24 slices",
        "1.5 × 2 × 3 mm",
        "72 mm",
        "bone, W 1500 L 300",
        "liver, W 150 L 60",
    ):
        assert words in text, words


def test_position_in_words(report):
    left, back, head = describe_position(report.detections[1]).split(", ")
    x1, y1, z1, x2, y2, z2 = report.detections[1].world_box
    assert (
        left == f"L {(x1 + x2) / 2:.0f}" and back == f"P {(y1 + y2) / 2:.0f}" and head == f"H {(z1 + z2) / 2:.0f}"
    )


def test_what_comes_from_files_is_escaped(make_scan):
    scan = make_scan(dicom=True, PatientName="<script>alert(1)</script>")
    text = HtmlReport().render(scan.report(keep_ids=True)).decode()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text and "<script>alert" not in text
    Page(text)


def test_patient_is_named_only_on_demand(make_scan):
    scan = make_scan(dicom=True, PatientName="Doe^John", PatientID="PID-4711")
    assert not re.search("Doe|John|4711", words_of(HtmlReport().render(scan.report())))
    assert re.search(r"Doe\^John.*4711", HtmlReport().render(scan.report(keep_ids=True)).decode(), re.DOTALL)


def test_no_detections_and_left_out_ones_are_said(make_scan):
    scan = make_scan()
    text = HtmlReport().render(scan.report(score_threshold=0.2, max_detections=1)).decode()
    assert "2 more detections above 0.20 are left out; these are the best 1." in text
    text = HtmlReport().render(scan.report(max_detections=0)).decode()
    assert "No detection is shown" in text and "3 more detections above 0.00 are left out." in text
    Page(text)
    scan.found = VolumeDetections()
    text = HtmlReport().render(scan.report(score_threshold=0.2)).decode()
    assert "No detection with a score of 0.20 or more" in text
    assert "does not mean that the scan shows no lesion" in text
    Page(text)


def test_scores_that_nobody_gave_are_not_shown(make_scan):
    scan = make_scan()
    text = HtmlReport().render(scan.report()).decode()
    assert "FPR" not in text
    scan.found.fpr_scores = scan.found.scores / 2
    assert "FPR" in HtmlReport().render(scan.report()).decode()


POINTS = OperatingPoints({0.5: 0.7, 1.0: 0.4567, 4.0: 0.2}, 1.0, -1.0, "9 patients")


def scan_in(page: bytes) -> tuple[dict, list[np.ndarray]]:
    """What the page's script reads: facts about the scan, and the levels of its slices."""
    text = page.decode()
    facts = json.loads(re.search(r'<script type="application/json" id="scan">(.*?)</script>', text, re.DOTALL)[1])
    lines = re.search(r'<script type="text/plain" id="slices">(.*?)</script>', text, re.DOTALL)[1].split("\n")
    files = [np.frombuffer(base64.b64decode(line), np.uint8) for line in lines]
    return facts, [cv2.imdecode(file, cv2.IMREAD_GRAYSCALE) for file in files]


@pytest.mark.parametrize("direction", ["straight", "flipped", "feet first", "sagittal"])
def test_the_page_holds_the_scan_in_hu_and_boxes_on_the_slices_they_span(make_scan, direction):
    report = make_scan(direction).report()
    facts, slices = scan_in(HtmlReport().render(report))
    depth, height, width = report.geometry.cache_shape
    assert facts["slices"] == list(range(depth)) and facts["size"] == [width, height]
    for finding, detection in zip(facts["findings"], report.detections, strict=True):
        places = report.geometry.slices_to_cache(detection.slices).round().astype(int).tolist()
        assert sorted(map(int, finding["boxes"])) == sorted(places) and finding["key"] in places
        left, top, wide, tall = finding["boxes"][str(finding["key"])]
        x, y = round(width * (left + wide / 2) / 100 - 0.5), round(height * (top + tall / 2) / 100 - 0.5)
        hu = facts["levels"][slices[finding["key"]][y, x]]
        true = report.volume.read([finding["key"]])[0, y, x]
        assert hu == pytest.approx(true, abs=120)  # beside a block of 900 HU, whose edge JPEG blurs
    corner = facts["levels"][slices[0][0, 0]]
    assert corner == pytest.approx(-1000, abs=30)


def test_slices_are_named_as_viewers_name_them(make_scan):
    facts, _ = scan_in(HtmlReport().render(make_scan("feet first", dicom=True).report()))
    assert facts["labels"][0] == "image 24" and facts["labels"][-1] == "image 1"  # from the feet upwards


@pytest.mark.parametrize("less", [3_000, 12_000])
def test_the_page_keeps_to_its_bytes(report, monkeypatch, less):
    full = HtmlReport().render(report)
    assert "To keep this page below" not in full.decode()
    monkeypatch.setattr(html_report, "RESERVE", 1000)
    monkeypatch.setattr(html_report, "MAX_BYTES", len(full) - less)
    page = HtmlReport().render(report)
    assert len(page) <= html_report.MAX_BYTES < len(full)


def test_the_page_of_a_large_noisy_scan_has_at_most_15_mb(make_scan):
    """Noise is what JPEG squeezes least."""
    scan = make_scan()
    report = scan.report()
    page = HtmlReport().render(replace(report, volume=Noise(report.volume.geometry)))
    facts, slices = scan_in(page)
    assert len(page) <= 15_000_000 and len(slices) == len(facts["slices"]) > 10
    said = re.search(r'<p class="help" id="reduced">(.*?)</p>', page.decode(), re.DOTALL)[1]
    assert f"{len(slices)} of 900 slices" in " ".join(said.split()) and "pixels instead of 512 × 512" in said
    keys = {finding["key"] for finding in facts["findings"]}
    assert keys <= set(facts["slices"])


class Noise:
    """A volume of 900 slices of 512 x 512 pixels, made up as it is read."""

    def __init__(self, geometry):
        self.geometry = replace(geometry, size=(512, 512, 900), pixel_spacing=None, crop=None)
        self.shape = self.geometry.cache_shape

    def read(self, places):
        rng = np.random.default_rng(0)
        picture = rng.integers(-1000, 1000, (512, 512)).astype(np.float32)
        return np.stack([picture for _ in places])


def test_the_slider_starts_at_one_false_positive_per_sub_volume(make_scan):
    scan = make_scan()
    for points, value in ((POINTS, "0.456"), (replace(POINTS, thresholds={0.5: 0.7}), "0.1"), (None, "0.1")):
        page = Page(HtmlReport().render(scan.report(score_threshold=0.1, operating_points=points)).decode())
        (slider,) = [each for each in page.tags["input"] if each.get("id") == "score"]
        assert (slider["min"], slider["value"]) == ("0.1", value)


def test_scores_are_told_in_words_where_the_weights_know_their_meaning(make_scan):
    scan = make_scan()
    words = " ".join(words_of(HtmlReport().render(scan.report(operating_points=POINTS))).split())
    assert "Of 100 detections with a score of 0.2 about 8, of 0.5 about 27, of 0.8 about 60 were lesions" in words
    assert "(9 patients)" in words and "1 from 0.46" in words
    assert "Of 100 detections with this score, about 81 were lesions on the validation patients." in words
    assert "validation patients" not in words_of(HtmlReport().render(scan.report()))


def test_the_region_is_told_where_densities_tell_it(make_scan, monkeypatch):
    scan = make_scan()
    assert ">Region<" not in HtmlReport().render(scan.report()).decode()  # blocks in soft tissue
    monkeypatch.setattr(html_report, "describe_region", lambda *_: "right lung")
    assert HtmlReport().render(scan.report()).decode().count("<span>right lung</span>") == 3


def test_detections_of_one_lesion_are_one_finding(make_scan):
    scan = make_scan()
    scan.found = split_third_block(scan.found)
    page = Page(HtmlReport().render(scan.report()).decode())
    assert [row["data-number"] for row in page.tags["tr"] if "data-number" in row] == ["1", "2", "4"]


def split_third_block(found: VolumeDetections) -> VolumeDetections:
    """The detections with that of slices 15 to 23 in two parts, of which the upper one is a little worse."""
    upper = found.boxes[2] + [0, 0, 5, 0, 0, 0]
    boxes = np.vstack([found.boxes, upper])
    boxes[2, 5] = 19
    owner = np.where((found.slice_detection == 2) & (found.slice_boxes[:, 0] >= 20), 3, found.slice_detection)
    return replace(
        found,
        boxes=boxes,
        scores=np.append(found.scores, 0.5),
        slice_detection=owner,
        expert_scores=np.vstack([found.expert_scores, [0.5, 0.5]]),
    )


def test_levels_are_fine_in_soft_tissue():
    table = np.array(level_table())
    assert (np.diff(table) >= 0).all() and table[0] < -2000 and table[-1] == 3071
    inside = (table > -140) & (table < 240)
    assert np.diff(table[inside]).max() <= 4
