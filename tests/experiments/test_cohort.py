"""The table of a cohort's marks beside DeepLesion's."""

from experiments.cohort import DEEPLESION, marks_table


def lesion(side: float, annotated: bool, slices: int) -> dict:
    return {"key_box": [0, 0, side, 1], "annotated": annotated, "boxes": [[z, 0, 0, 1, 1] for z in range(slices)]}


def test_counts_marks_by_size_in_mm():
    entry = {"dataset": "deeplesion", "spacing": [2.0, 2.0, 1.0], "patient": "1"}
    truth = {
        "a": {**entry, "study": "1_1", "lesions": [lesion(5, True, 3), lesion(5, False, 3)]},
        "b": {**entry, "study": "1_2", "lesions": [lesion(30, True, 3)]},
        "other": {**entry, "dataset": "luna", "study": "x", "lesions": [lesion(5, False, 9)]},
    }
    found = {name: own for name, own, _ in marks_table(truth)}
    assert list(found) == list(DEEPLESION)
    assert found["lesions of 8 to 12 mm"] == "67%"
    assert found["marked of 8 to 12 mm"] == "50%"
    assert found["marked of 48 to 80 mm"] == "100%"
    assert found["marked of 16 to 24 mm"] == ""
    assert found["lesions a sub-volume"] == "1.5"
    assert found["sub-volumes with 1, 2, 3 marks"] == "100%, 0%, 0%"
    assert found["slices of a lesion (5, 25, 50, 75, 95%)"] == "3, 3, 3, 3, 3"
    assert found["studies a patient"] == "2.0"
