"""A ledger and the records that it belongs to."""

import pytest
from helpers.ledger_rows import BOX, GIVEN, OTHER, row
from helpers.mining_proposals import record


@pytest.fixture
def rows():
    new, region = f"{OTHER}/fused-3", f"{GIVEN}/luna-1"
    return [
        row(4), row(6),
        row(7, new, OTHER, "IntraPatient", distance=0.1), row(8, new, OTHER, "IntraPatient", distance=0.1),
        row(5, region, GIVEN, "CrossDataset", status="uncertain", annotation="", x1=50.0, x2=60.0),
        row(9, region, GIVEN, "CrossDataset", status="uncertain", annotation="", x1=50.0, x2=60.0),
    ]  # fmt: skip


@pytest.fixture
def records():
    return [
        record("000001_01_01", lesions=[(5, BOX), (5, (50, 50, 60, 60))]),
        record("000002_01_01", lesions=[(3, BOX)]),
        record("000003_01_01", lesions=[(3, BOX)]),
    ]
