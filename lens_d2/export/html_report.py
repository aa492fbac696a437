"""``report.html``: a page to look at, in one file that works without a network."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from .. import __version__
from ..structures.detections import Detection
from ..visualization.pictures import PictureMaker
from ..visualization.planes import WINDOWS, score_hex
from .scan_report import NOT_A_MEDICAL_DEVICE, ScanReport
from .writer import EXPORT_REGISTRY, Writer

TEMPLATE = "report.html.j2"
AXES = ("RL", "AP", "FH")  # what the negative and the positive side of x, y and z are called


@EXPORT_REGISTRY.register()
class HtmlReport(Writer):
    """Page with an overview, a table to sort, a slider for the score, and pictures of every detection."""

    file_name = "report.html"
    purpose = "page to look at"
    required = True

    def render(self, report: ScanReport) -> bytes:
        """HTML in UTF-8, with all pictures inside."""
        maker = PictureMaker(report.volume, report.detections)
        page = page_environment().get_template(TEMPLATE)
        return page.render(
            report=report,
            version=__version__,
            notice=NOT_A_MEDICAL_DEVICE,
            facts=scan_facts(report),
            projections=maker.projections(),
            cards=[(detection, maker.pictures(i)) for i, detection in enumerate(report.detections)],
            floor=int(100 * report.score_threshold) / 100,
        ).encode()


def scan_facts(report: ScanReport) -> dict[str, str]:
    """Facts about the scan for the page's head, as label -> text."""
    geometry = report.geometry
    size, spacing = geometry.size, geometry.spacing
    return {
        **report.patient,
        "Matrix": f"{size[0]} × {size[1]}, {size[2]} slice{'s' if size[2] != 1 else ''}",
        "Voxel": " × ".join(f"{step:.3g}" for step in spacing) + " mm",
        "Coverage": f"{size[2] * spacing[2]:.0f} mm head to feet",
        **report.provenance,
        "Created": report.created.strftime("%Y-%m-%d %H:%M"),
    }


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
    environment.globals["window_text"] = window_text
    return environment


def describe_position(detection: Detection) -> str:
    """The centre of a detection in mm from the world's origin, as radiologists write it: "R 43, A 12, H 120"."""
    low, high = detection.world_box[:3], detection.world_box[3:]
    middle = [(a + b) / 2 for a, b in zip(low, high, strict=True)]
    return ", ".join(f"{sides[value >= 0]} {abs(value):.0f}" for sides, value in zip(AXES, middle, strict=True))


def window_text(name: str) -> str:
    """A display window as radiologists name it: "bone, W 1500 L 300"."""
    low, high = WINDOWS[name]
    return f"{name}, W {high - low:.0f} L {(high + low) / 2:.0f}".replace("-", "−")
