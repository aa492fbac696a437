"""Headers of a series: faults, labels, what DICOM allows, texts made readable."""

import pytest

from lens_d2.export.dicom_headers import is_allowed, is_unfit, readable


@pytest.fixture
def headers_of(make_scan):
    def headers(**elements):
        return make_scan(dicom=True, **elements).report().headers

    return headers


@pytest.mark.parametrize(
    ("elements", "fault"),
    [
        ({}, None),
        ({"StudyInstanceUID": None}, "24 of 24 slices have no valid Study Instance UID"),
        ({"SOPInstanceUID": "1.2.3.4"}, "24 slices share 1 SOP Instance UID"),
    ],
)
def test_fault(headers_of, elements, fault):
    assert headers_of(**elements).fault == fault


def test_slices_of_many_patients_join_no_study(headers_of):
    headers = headers_of(change=lambda k, data: setattr(data, "PatientID", f"PID-{k}"))
    assert headers.unfit == {"PatientID": "differs between the slices"} and not headers.joins_study(True)
    assert not headers.references(keep_ids=True)[0].PatientID
    told = headers.warnings(keep_ids=True)
    assert len(told) == 2 and "PID-" not in "".join(told) and headers.warnings(keep_ids=False) == []


def test_slices_go_by_their_numbers_if_these_are_their_own(headers_of):
    assert headers_of().labels()[:2] == ["image 1", "image 2"]
    assert headers_of(InstanceNumber=7).labels() == headers_of(InstanceNumber=None).labels() == []


def test_nobody_is_referred_to_unless_asked(headers_of):
    headers = headers_of(PatientName="Doe^Jane", PatientID="4711", AccessionNumber="A1")
    plain, named = headers.references(keep_ids=False)[0], headers.references(keep_ids=True)[0]
    assert not any(plain[keyword].value for keyword in ("PatientName", "PatientID", "AccessionNumber"))
    assert (str(named.PatientName), named.PatientID, named.AccessionNumber) == ("Doe^Jane", "4711", "A1")
    assert plain.SOPInstanceUID == named.SOPInstanceUID


@pytest.mark.parametrize(
    ("keyword", "text", "allowed"),
    [
        ("PatientSex", "F", True),
        ("PatientSex", "female", False),
        ("StudyDate", "20240229", True),
        ("StudyDate", "20230229", False),
        ("PatientName", "Yamada^Tarou=山田^太郎", True),
        ("PatientName", "a^b^c^d^e^f", False),
        ("PatientID", "1\\2", False),
        ("PatientID", "", True),
    ],
)
def test_what_dicom_allows(keyword, text, allowed):
    assert is_allowed(keyword, text) == allowed


def test_readable():
    assert readable("a\n b\tc") == "a b c"
    assert readable("nul\0, half \ud800") == "nul�, half �"
    assert readable("x" * 9, 8) == "x" * 7 + "…" and is_unfit("\x1b") and not is_unfit("é")
