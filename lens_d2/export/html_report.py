"""``report.html``: a page to look at, in one file that works without a network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from math import floor

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from .. import __version__
from ..data.checks import is_oblique
from ..evaluation.operating_points import OperatingPoints
from ..structures.detections import Detection
from ..visualization.pictures import PictureMaker
from ..visualization.planes import PRESETS, Picture, PlacedBox, level_table, score_hex
from ..visualization.slice_stack import Plan, SliceStack, make_stack
from .findings import Finding
from .region import describe_region
from .scan_report import NOT_A_MEDICAL_DEVICE, ScanReport
from .writer import EXPORT_REGISTRY, Writer

TEMPLATE = "report.html.j2"
AXES = ("RL", "AP", "FH")  # what the negative and the positive side of x, y and z are called
MAX_BYTES = 15_000_000  # of the page
RESERVE = 100_000  # bytes for what the page says of its slices
REFORMAT_BYTES = 6_000_000  # of the coronal and sagittal pictures of all findings
MAX_FINDINGS = 200  # on the page
START_RATE = 1.0  # false positives per sub-volume at which the page opens
EXAMPLES = (0.2, 0.5, 0.8)  # scores whose meaning the page tells


@dataclass(frozen=True)
class Card:
    """All that the page shows of one finding.

    Attributes:
        finding: detections of one lesion.
        window: name of the display window that suits it.
        region: in words, or None.
        close_up: layout of its surroundings on a slice, which the page paints.
        field: their part of the slice.
        boxes: its box on each slice of the cache frame.
        coronal, sagittal: reformats around it in companded HU, or None where these would take too many bytes.
    """

    finding: Finding
    window: str
    region: str | None
    close_up: Picture
    field: PlacedBox
    boxes: Mapping[int, PlacedBox]
    coronal: Picture | None = None
    sagittal: Picture | None = None

    @property
    def whole(self) -> Detection:
        """The finding's extent, with the scores of its best detection."""
        return self.finding.whole


@EXPORT_REGISTRY.register()
class HtmlReport(Writer):
    """Page to scroll through the scan, with a table to sort, a slider for the score, and a card for each finding.

    It has at most :data:`MAX_BYTES`. Slices take what the rest leaves; it says if some are left out or reduced.
    """

    file_name = "report.html"
    purpose = "page to look at"
    required = True

    def render(self, report: ScanReport) -> bytes:
        """HTML in UTF-8, with all pictures inside."""
        shown = report.findings[:MAX_FINDINGS]
        maker = PictureMaker(report.volume, [each.whole for each in shown])
        cards = make_cards(maker, shown)
        template = page_environment().get_template(TEMPLATE)
        values = {
            "report": report,
            "version": __version__,
            "notice": NOT_A_MEDICAL_DEVICE,
            "facts": scan_facts(report),
            "projections": maker.projections(),
            "slice_view": maker.slice_view(),
            "cards": cards,
            "presets": PRESETS,
            "has_regions": any(card.region for card in cards),
            "floor": _floor(report.score_threshold, 2),
            "start": start_score(report),
            "examples": EXAMPLES,
            "megabytes": MAX_BYTES // 1_000_000,
        }

        def page(stack: SliceStack) -> bytes:
            return template.render(values, stack=stack, scan=script_data(scan_data(report, cards, stack))).encode()

        empty = SliceStack(Plan(1, (1, 1), 1), report.volume.shape, range(report.volume.shape[0]))
        budget = MAX_BYTES - RESERVE - len(page(empty))
        stack = make_stack(report.volume, budget, [maker.key(i) for i in range(len(cards))])
        return page(stack)


def make_cards(maker: PictureMaker, findings: list[Finding]) -> list[Card]:
    """The cards of findings.

    Args:
        maker: of the pictures of the same findings.
        findings: the best first.
    """
    cards, left = [], REFORMAT_BYTES
    for index, finding in enumerate(findings):
        key = maker.key(index)
        boxes = maker.frames(index)
        close_up, field = maker.close_view(index)
        card = Card(finding, maker.window(index), _region(maker, index, key), close_up, field, boxes)
        coronal, sagittal = (maker.reformat(index, orientation, None) for orientation in ("coronal", "sagittal"))
        left -= len(coronal.uri) + len(sagittal.uri)
        cards.append(replace(card, coronal=coronal, sagittal=sagittal) if left >= 0 else card)
    return cards


def _region(maker: PictureMaker, index: int, key: int) -> str | None:
    box = maker.slice_box(index, key)
    if box is None:
        return None
    return describe_region(maker.volume.read([key])[0], box, maker.pixel, not is_oblique(maker.geometry))


def scan_data(report: ScanReport, cards: list[Card], stack: SliceStack) -> dict:
    """Facts for the page's script, plain enough for JSON."""
    native = report.geometry.slices_to_volume(list(stack.slices)).round().astype(int).tolist()
    points = report.operating_points
    return {
        "size": stack.plan.size,
        "slices": list(stack.slices),
        "labels": [report.slice_label(z) for z in native],
        "levels": level_table(),
        "presets": PRESETS,
        "calibration": None if points is None else [points.slope, points.intercept],
        "findings": [
            {
                "number": card.whole.number,
                "score": card.whole.score,
                "color": score_hex(card.whole.score),
                "window": card.window,
                "title": describe_finding(card),
                "key": report.geometry.slices_to_cache([card.whole.key_slice]).round().astype(int).tolist()[0],
                "field": _corners(card.field),
                "boxes": {z: _corners(frame) for z, frame in card.boxes.items()},
            }
            for card in cards
        ],
    }


def _corners(frame: PlacedBox) -> list[float]:
    """Left, top, width and height in percent."""
    return [frame.left, frame.top, frame.width, frame.height]


def script_data(content) -> Markup:
    """JSON in which no HTML parser finds the end of its script element, nor a comment that hides it."""
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    return Markup(text.replace("</", "<\\/").replace("<!", "\\u003c!"))


def scan_facts(report: ScanReport) -> dict[str, str]:
    """Facts about the scan for the page's head, as label -> text."""
    geometry = report.geometry
    size, spacing = geometry.size, geometry.spacing
    along = "across the slices" if is_oblique(geometry) else "head to feet"
    return {
        **report.patient,
        "Matrix": f"{size[0]} × {size[1]}, {size[2]} slice{'s' if size[2] != 1 else ''}",
        "Voxel": " × ".join(f"{step:.3g}" for step in spacing) + " mm",
        "Coverage": f"{size[2] * spacing[2]:.0f} mm {along}",
        **report.provenance,
        "Created": report.created.strftime("%Y-%m-%d %H:%M"),
    }


def start_score(report: ScanReport) -> float:
    """The score at which the page opens: that of one false positive per sub-volume if known, else the lowest."""
    lowest = _floor(report.score_threshold, 2)
    points = report.operating_points
    if points is None or START_RATE not in points.thresholds:
        return lowest
    return max(_floor(points.thresholds[START_RATE], 3), lowest)


def share_text(points: OperatingPoints, score: float) -> str:
    """Share of detections with a score that were lesions on the validation patients, of 100: "about 62"."""
    share = 100 * float(points.probability([score])[0])
    if share < 1:
        return "fewer than 1"
    return "more than 99" if share > 99 else f"about {share:.0f}"


def _floor(value: float, digits: int) -> float:
    """Round down, so that what a threshold lets in stays in."""
    return floor(value * 10**digits + 1e-9) / 10**digits


@cache
def page_environment() -> Environment:
    """Environment in which templates of pages are rendered: it escapes everything and allows nothing undefined."""
    environment = Environment(
        loader=PackageLoader("lens_d2.export"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["color"] = score_hex
    environment.filters["lps"] = describe_position
    environment.filters["size"] = describe_size
    environment.globals["window_text"] = window_text
    environment.globals["share_text"] = share_text
    return environment


def describe_finding(card: Card) -> str:
    """A finding in a line: "Finding 3, score 0.92, right lung, 12 × 10 × 15 mm"."""
    region = [card.region] if card.region else []
    return ", ".join(
        [
            f"Finding {card.whole.number}",
            f"score {card.whole.score:.2f}",
            *region,
            f"{describe_size(card.whole)} mm",
        ]
    )


def describe_size(detection: Detection) -> str:
    """The sides of a detection's box along x, y and z, mm: "12 × 10 × 15"."""
    return " × ".join(f"{side:.0f}" for side in detection.size_mm)


def describe_position(detection: Detection) -> str:
    """The centre of a detection in mm from the world's origin, as radiologists write it: "R 43, A 12, H 120"."""
    low, high = detection.world_box[:3], detection.world_box[3:]
    middle = [(a + b) / 2 for a, b in zip(low, high, strict=True)]
    return ", ".join(f"{sides[value >= 0]} {abs(value):.0f}" for sides, value in zip(AXES, middle, strict=True))


def window_text(name: str) -> str:
    """A display window as radiologists name it: "bone, W 1500 L 300"."""
    low, high = PRESETS[name]
    return f"{name}, W {high - low:.0f} L {(high + low) / 2:.0f}".replace("-", "−")
