"""The process that reads one file."""

from lens_d2.data.sources import sitk_file


def test_the_reading_process_imports_no_more_than_it_needs():
    text = sitk_file.READER.read_text()
    assert "lens_d2" not in text
