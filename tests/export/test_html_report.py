"""The page as a file: complete, self-contained, careful with what it shows."""

import re
from html.parser import HTMLParser

import pytest

from lens_d2.export import HtmlReport
from lens_d2.export.html_report import describe_position
from lens_d2.structures.detections import VolumeDetections

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
        assert f"detection-{detection.number}" in page.ids
        numbered = [a for a in page.tags["a"] if a.get("data-number") == str(detection.number)]
        assert len(numbered) == 2  # on both projections
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
    scan = make_scan(dicom=True, PatientName="Doe^John", PatientID="4711")
    assert not re.search("Doe|John|4711", HtmlReport().render(scan.report()).decode())
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
