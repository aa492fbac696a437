"""Files of boxes and points, the protocols' own and those of other programs.

- ``published.py``: files in the layouts of the three protocols;
- ``foreign.py``: boxes of other programs, their registry :data:`BOX_READERS`, and their way to the protocols;
- ``coco.py``, ``monai.py``, ``nndetection.py``, ``table.py``: one format each.
"""

from . import coco, monai, nndetection, table  # noqa: F401  (they register themselves)
from .foreign import (
    BOX_READERS,
    BoxReader,
    ForeignBoxes,
    VolumeBoxes,
    find_reader,
    find_scan,
    read_boxes,
    scan_axes,
    scan_geometry,
)
from .published import (
    read_box_detections,
    read_candidates,
    read_lesion_boxes,
    read_marks,
    read_marks_as_detections,
    read_nodules,
    read_tracklets,
)

__all__ = [
    "BOX_READERS",
    "BoxReader",
    "ForeignBoxes",
    "VolumeBoxes",
    "find_reader",
    "find_scan",
    "read_box_detections",
    "read_boxes",
    "read_candidates",
    "read_lesion_boxes",
    "read_marks",
    "read_marks_as_detections",
    "read_nodules",
    "read_tracklets",
    "scan_axes",
    "scan_geometry",
]
