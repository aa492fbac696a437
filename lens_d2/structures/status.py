"""Meaning of the boxes of a training sample. The mapper writes these values, the losses read them."""

from enum import IntEnum


class BoxStatus(IntEnum):
    """Field ``gt_status`` of a sample's ``Instances``."""

    LESION = 0  # an annotation, given or mined: to be found
    UNCERTAIN = 1  # to be left out of every loss (LENS, Section V-C)
    HARD_NEGATIVE = 2  # known not to be a lesion


# Meaning in training of the status that a record gives a lesion (lens_d2.structures.records.STATUSES).
STATUS_OF_RECORD = {
    "annotation": BoxStatus.LESION,
    "mined": BoxStatus.LESION,
    "accepted": BoxStatus.LESION,
    "uncertain": BoxStatus.UNCERTAIN,
    "unsure": BoxStatus.UNCERTAIN,
    "hard_negative": BoxStatus.HARD_NEGATIVE,
}
