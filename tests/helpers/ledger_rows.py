"""Rows of a ledger of two lesions and an uncertain region."""

import numpy as np
import pandas as pd

from lens_d2.data.ledger.table import (
    SCHEMA,
    LedgerRow,
)

BOX = (10.0, 10.0, 30.0, 30.5)


GIVEN, OTHER = "000001_01_01_001-020", "000002_01_01_001-020"


def row(slice_=4, lesion=f"{GIVEN}/0", volume=GIVEN, strategy="CrossSlice", **columns):
    values = {
        "id": f"{lesion}@{slice_}", "volume": volume, "slice": slice_,
        "x1": BOX[0], "y1": BOX[1], "x2": BOX[2], "y2": BOX[3],
        "lesion": lesion, "strategy": strategy, "round": 1, "score": 0.5, "distance": np.nan,
        "annotation": f"{GIVEN}/0", "status": "annotation",
    }  # fmt: skip
    return LedgerRow(**{**values, **columns})


def table_of(*rows):
    return pd.DataFrame(rows, columns=SCHEMA.names)
