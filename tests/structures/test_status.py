"""Every status that a record may give a lesion has a meaning in training."""

from lens_d2.structures.records import STATUSES
from lens_d2.structures.status import STATUS_OF_RECORD, BoxStatus


def test_every_status_of_a_record_is_known():
    assert list(STATUS_OF_RECORD) == list(STATUSES)
    assert set(STATUS_OF_RECORD.values()) == set(BoxStatus)
