"""Page on which a radiologist judges the proposals of a ledger, one at a time; a single file, no network.

Each proposal is a row of JSON that the browser parses only when it shows the proposal, so that thousands of them
stay usable. The verdicts go back into the ledger through :mod:`lens_d2.data.ledger.verdicts`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jinja2 import Environment
from markupsafe import Markup

from .. import __version__
from ..data.cache import CachedVolume, VolumeCache
from ..data.ledger.verdicts import VERDICTS, Proposal
from ..io.files import whole_file
from ..io.progress import Progress
from ..structures.boxes import hull, key_slice_box
from ..structures.detections import Detection
from ..visualization.pictures import PictureMaker, Style
from ..visualization.planes import WINDOWS, Encoding, Picture
from .html_report import page_environment, script_data
from .scan_report import NOT_A_MEDICAL_DEVICE

PAGE, ROW = "review.html.j2", "review_row.html.j2"
# About 20 kB for all pictures of a proposal.
SMALL = Style(axial=200, close_up=220, detail=150, strip=96, encoding=Encoding(".webp", 72))


@dataclass(frozen=True)
class Row:
    """A proposal as the page shows it.

    Attributes:
        proposal: of the ledger.
        record: of its sub-volume.
        size_mm: sides of its box along x, y, z.
        key_slice: from 0 in the sub-volume.
        window: name of the display window that suits it.
        close_ups: the key slice around it, by the name of the window.
        whole: the whole key slice.
        coronal, sagittal: reformats around it.
        strip: neighbouring slices.
        annotation: the one that it was found by; None if there was none, or if the dataset lacks it.
    """

    proposal: Proposal
    record: dict
    size_mm: tuple[float, ...]
    key_slice: int
    window: str
    close_ups: dict[str, Picture]
    whole: Picture
    coronal: Picture
    sagittal: Picture
    strip: Sequence[Picture]
    annotation: Annotation | None = None


@dataclass(frozen=True)
class Annotation:
    """A given lesion on the slice that shows it best.

    Attributes:
        id: of the lesion.
        record: of its sub-volume.
        key_slice: from 0 in the sub-volume.
        picture: around it.
    """

    id: str
    record: dict
    key_slice: int
    picture: Picture


class RowMaker:
    """Makes the rows of proposals, volume by volume."""

    def __init__(self, records: Sequence[dict], cache: VolumeCache):
        """
        Args:
            records: of the dataset that was mined, with its given annotations.
            cache: of its sub-volumes.
        """
        self.records = {record["volume"]: record for record in records}
        self.lesions = {x["id"]: (r, x) for r in records for x in r["lesions"] if x["boxes"]}
        self.cache = cache

    def rows(self, proposals: Sequence[Proposal]) -> Iterator[Row]:
        """Yield the rows of proposals, those of one sub-volume together.

        Raises:
            DataError: a volume cannot be read.
        """
        of_volume: dict[str, list[Proposal]] = {}
        for proposal in proposals:
            of_volume.setdefault(proposal.volume, []).append(proposal)
        for name in sorted(of_volume):
            yield from self._of_volume(self.records[name], of_volume[name])

    def _of_volume(self, record: dict, proposals: list[Proposal]) -> Iterator[Row]:
        volume = self.cache.open(record)
        detections = [_detection(each.slice_boxes, volume) for each in proposals]
        given = [box for lesion in record["lesions"] for box in lesion["boxes"]]
        maker = PictureMaker(volume, detections, SMALL, given)
        for index, proposal in enumerate(proposals):
            window = maker.window(index)
            yield Row(
                proposal=proposal,
                record=record,
                size_mm=detections[index].size_mm,
                key_slice=detections[index].key_slice,
                window=window,
                close_ups=dict(zip(WINDOWS, maker.close_ups(index, list(WINDOWS)), strict=True)),
                whole=maker.whole(index, "soft tissue"),
                coronal=maker.reformat(index, "coronal", window),
                sagittal=maker.reformat(index, "sagittal", window),
                strip=maker.strip(index, window),
                annotation=self._annotation(proposal.annotation),
            )

    def _annotation(self, name: str) -> Annotation | None:
        if name not in self.lesions:
            return None
        record, lesion = self.lesions[name]
        row = key_slice_box(lesion)
        volume = self.cache.open(record)
        maker = PictureMaker(volume, [_detection(np.array([[*row, 1.0]]), volume)], SMALL)
        return Annotation(name, record, int(row[0]), maker.close_ups(0, [maker.window(0)])[0])


def _detection(slice_boxes: np.ndarray, volume: CachedVolume) -> Detection:
    """(n, 6) z, x1, y1, x2, y2, score in a sub-volume as a detection to be drawn."""
    score = float(slice_boxes[:, 5].max())
    return Detection.at(hull(slice_boxes), volume.geometry, number=1, score=score, slice_boxes=slice_boxes)


def write_review_page(
    path: str | os.PathLike,
    ledger: str,
    proposals: Sequence[Proposal],
    records: Sequence[dict],
    cache: VolumeCache,
    left_out: int = 0,
) -> int:
    """Write the page. Holds the pictures of one sub-volume in memory.

    Args:
        path: of the page, which appears when it is complete.
        ledger: name of the file.
        proposals: in the order in which they are to be judged.
        records: of the dataset that was mined.
        cache: of its sub-volumes.
        left_out: further proposals that the page does not show; it says how many.

    Returns:
        Bytes of the page.

    Raises:
        DataError: a volume cannot be read.
    """
    environment = page_environment()
    number = {each.id: place for place, each in enumerate(proposals)}

    def rows() -> Iterator[tuple[int, Markup]]:
        with Progress(len(proposals), "review page", "proposal") as shown:
            for row in RowMaker(records, cache).rows(proposals):
                yield number[row.proposal.id], script_data(_render_row(environment, row))
                shown.update()

    page = environment.get_template(PAGE)
    with whole_file(path) as temporary:
        page.stream(
            ledger=ledger,
            count=len(proposals),
            left_out=left_out,
            index=script_data(_index(ledger, proposals)),
            rows=rows(),
            notice=NOT_A_MEDICAL_DEVICE,
            version=__version__,
        ).dump(str(temporary), encoding="utf-8")
        return temporary.stat().st_size


def _index(ledger: str, proposals: Sequence[Proposal]) -> dict:
    """Ids, checksums and verdicts of all proposals, which the page's script needs from the start."""
    return {
        "ledger": ledger,
        "verdicts": VERDICTS,
        "proposals": [
            [each.id, each.checksum, each.status if each.status in VERDICTS else ""] for each in proposals
        ],
    }


def _render_row(environment: Environment, row: Row) -> str:
    return environment.get_template(ROW).render(row=row, proposal=row.proposal)
