"""JSON of MONAI's 3D detection tutorial and of its lung nodule bundle."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path, PurePosixPath

import numpy as np

from ...io.errors import DataError
from ...io.formats import load_content, parse_rows
from .foreign import BOX_READERS, SCAN_SUFFIXES, BoxReader, VolumeBoxes

COLUMNS = ("the centre x", "the centre y", "the centre z", "the width", "the height", "the depth")
SCORES = ("score", "scores", "label_scores")
_LIST = rb'\s*"(training|validation|testing)"\s*:\s*\[\s*\]\s*'
_NOTHING = re.compile(rb"\s*\{" + _LIST + rb"(," + _LIST + rb")*\}\s*")
RAS_TO_LPS = np.array([-1.0, -1.0, 1.0, 1.0, 1.0, 1.0])  # of a centre; sizes have no direction


@BOX_READERS.register()
class monai(BoxReader):
    """Boxes in the world: ``{"validation": [{"image": path, "box": [...], "label": [...], "score": [...]}]}``.

    - A box is the centre x, y, z and the size along x, y, z in mm (MONAI's mode ``cccwhd``). World coordinates are
      LPS, as the tutorial writes them and LUNA16 gives them (``affine_lps_to_ras=True``).
    - The volume's name is that of the image file, without folder and ending.
    - Scores may be called ``score``, ``scores`` or ``label_scores``; without scores the file is a truth. Labels
      are not told apart.
    - Of the lists ``training``, ``validation`` and ``testing`` one is taken, by ``split``.
    """

    to_lps = np.ones(6)

    def recognizes(self, data: bytes) -> bool:
        """Entries that have an image and boxes, or lists of none."""
        return b'"image"' in data and b'"box"' in data or _NOTHING.fullmatch(data) is not None

    def read(self, path: Path, split: str | None, images: str | PathLike | None) -> Iterator[VolumeBoxes]:
        """Read the entries of one list."""
        for number, entry in enumerate(_entries(path, load_content(path), split)):
            if not isinstance(entry, Mapping) or not isinstance(entry.get("image"), str):
                raise DataError(path, f"entry {number}: no image and boxes")
            name = _volume_name(entry["image"])
            rows = parse_rows(path, f"volume {name}, box", entry.get("box"), COLUMNS) * self.to_lps
            centre, half = rows[:, :3], rows[:, 3:] / 2
            scores = next((entry[key] for key in SCORES if key in entry), None)
            if scores is not None:
                scores = read_scores(path, name, scores, len(rows))
            yield VolumeBoxes(name, scores, world=np.hstack([centre - half, centre + half]))


@BOX_READERS.register()
class monai_ras(monai):
    """The same with RAS world coordinates, as MONAI writes them with ``affine_lps_to_ras=False``."""

    to_lps = RAS_TO_LPS

    def recognizes(self, data: bytes) -> bool:
        """Never: the content does not tell it from LPS, so that it is chosen by name."""
        return False


def read_scores(path: Path, name: str, scores, count: int) -> np.ndarray:
    """(count,) scores of a volume's boxes.

    Raises:
        DataError: there are more or fewer, or they are not finite numbers.
    """
    if not isinstance(scores, list | np.ndarray) or len(scores) != count:
        raise DataError(path, f"volume {name}: {count} boxes need as many scores")
    return parse_rows(path, f"volume {name}, score", [[score] for score in scores], ("the score",))[:, 0]


def _entries(path: Path, content, split: str | None) -> list:
    given = content if isinstance(content, Mapping) else {}
    lists = {key: value for key, value in given.items() if isinstance(key, str) and isinstance(value, list)}
    if split is not None:
        lists = {key: value for key, value in lists.items() if key.startswith(split)}
    if len(lists) != 1:
        found = f"has the lists {', '.join(lists)}: choose one by --split" if lists else "has no list of images"
        raise DataError(path, found)
    return next(iter(lists.values()))


def _volume_name(image: str) -> str:
    name = PurePosixPath(image.replace("\\", "/")).name
    return next((name.removesuffix(suffix) for suffix in SCAN_SUFFIXES if name.endswith(suffix)), name)
