"""What DICOM outputs share. (Their documents and studies: test_structured_report.py, test_segmentation.py.)"""

from types import SimpleNamespace

import pytest

from lens_d2.export import SegmentationFile, StructuredReport
from lens_d2.export.dicom_document import derive_uid


@pytest.mark.parametrize("writer", [SegmentationFile(), StructuredReport()])
def test_a_scan_that_is_no_dicom_series_has_none(writer):
    report = SimpleNamespace(headers=None, detections=[])
    assert not writer.applies(report)
    with pytest.raises(ValueError, match=f"{writer.file_name} can be written about a DICOM series alone"):
        writer.render(report)


def test_derived_uids_are_sound_and_follow_from_the_text():
    one, other = derive_uid("1.2.3"), derive_uid("1.2.4")
    assert one == derive_uid("1.2.3") != other and one.is_valid and one.startswith("2.25.")
