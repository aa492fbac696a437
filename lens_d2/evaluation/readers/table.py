"""Tables of boxes: ``detections.csv`` of ``demo/predict.py``, and others with its columns."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

import numpy as np

from ...io.errors import DataError
from ...io.tables import VOXEL_COLUMNS, WORLD_COLUMNS, finite_numbers, read_table
from .foreign import BOX_READERS, BoxReader, VolumeBoxes, grouped

FRAMES = {"voxels": VOXEL_COLUMNS, "world": WORLD_COLUMNS}
COLUMNS = {"volume", "score", *VOXEL_COLUMNS, *WORLD_COLUMNS}  # that are read


@BOX_READERS.register()
class table(BoxReader):
    """A row for each 3D box, with the columns of ``detections.csv``; others are not read.

    - ``x1_pixel_edge, y1_pixel_edge, z1_first_slice, x2_pixel_edge, y2_pixel_edge, z2_last_slice``: voxels, slices
      from 0, the last one included; or ``lps_x_min_mm, lps_y_min_mm, lps_z_min_mm, lps_x_max_mm, ...``: LPS mm; or
      both.
    - ``score``; without it the file is a truth.
    - ``volume``; without it the volume is named like the file's folder, as ``demo/predict.py`` writes one file
      into the folder of each scan. A row without coordinates names a volume without boxes.
    """

    patterns = ("detections.csv",)

    def recognizes(self, data: bytes) -> bool:
        """A column of one of the two frames; with semicolons between them, too, which reading then reports."""
        line = data.partition(b"\n")[0].replace(b";", b",")
        first = line.decode("utf-8-sig", errors="replace").splitlines()[:1]
        header = {name.strip().lower() for name in next(csv.reader(first), [])}
        return any(set(names) & header for names in FRAMES.values())

    def read(self, path: Path, split: str | None, images: str | PathLike | None) -> Iterator[VolumeBoxes]:
        """Read a table of one volume or of several."""
        cells = read_table(path)
        misspelt = [name for name in cells if name not in COLUMNS and name.lower().strip("_ ") in COLUMNS]
        if misspelt:
            raise DataError(path, f"the column {misspelt[0]!r} has to be {misspelt[0].lower().strip('_ ')!r}")
        frames = {frame: list(names) for frame, names in FRAMES.items() if set(names) & set(cells.columns)}
        absent = [name for names in frames.values() for name in names if name not in cells]
        if absent or not frames:
            needed = f"needed are {', '.join(VOXEL_COLUMNS)}, or {', '.join(WORLD_COLUMNS)}"
            raise DataError(path, f"no column {', '.join(absent) or 'of boxes'}; {needed}")
        if "volume" in cells:
            if (cells["volume"] == "").any():
                raise DataError(path, f"line {cells.index[cells['volume'] == ''][0] + 2}: no volume's name")
            names = list(dict.fromkeys(cells["volume"]))
        else:
            cells["volume"] = path.resolve().parent.name
            names = [path.resolve().parent.name]
        columns = [name for given in frames.values() for name in given]
        cells = cells[(cells[columns] != "").any(axis=1)]
        columns += ["score"] if "score" in cells else []
        numbers = [finite_numbers(path, cells[column], cells[["volume"]]) for column in columns]
        table = np.column_stack([np.zeros((len(cells), 0)), *numbers])
        codes, found = cells["volume"].factorize()
        by_volume = dict(zip(found, grouped(table, codes), strict=True))
        for name in names:
            mine = by_volume.get(name, table[:0])
            boxes = {frame: mine[:, [columns.index(each) for each in given]] for frame, given in frames.items()}
            yield VolumeBoxes(name, mine[:, -1] if columns[-1] == "score" else None, **boxes)
