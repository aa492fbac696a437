"""A report is known by its beginning."""

import pytest

from lens_d2.io.report_format import is_report


@pytest.mark.parametrize(
    ("content", "known"),
    [
        ('{"format": "lens_d2 detections", "format_version": 1}', True),
        ('{\n  "format":   "lens_d2 detections"', True),
        ('{"format": "another program"}', False),
        (" " * 5000 + '{"format": "lens_d2 detections"}', False),
        ("", False),
    ],
)
def test_by_content(tmp_path, content, known):
    (tmp_path / "detections.json").write_text(content)
    assert is_report(tmp_path / "detections.json") == known


def test_what_cannot_be_read_is_none(tmp_path):
    assert not is_report(tmp_path) and not is_report(tmp_path / "absent.json")
