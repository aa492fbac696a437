"""Lesions, boxes and slices of training, strategy by strategy."""

from helpers.ledger_rows import row, table_of

from lens_d2.data.ledger.counts import add_counts, count_training_data, format_counts, strategies_of


class TestCounts:
    """Table III."""

    def test_by_hand(self, records, rows):
        counts = count_training_data(records, table_of(*rows), ["CrossSlice", "IntraPatient", "CrossDataset"])
        assert [(c.lesions, c.boxes, c.uncertain, c.slices) for c in counts] == [
            (4, 4, 0, 3),
            (4, 6, 0, 5),
            (5, 8, 0, 7),
            (5, 8, 1, 7),
            (5, 8, 2, 60),
        ]
        text = format_counts(counts)
        assert "# 2D uncertain" in text and "+ IntraPatient" in text

    def test_rejected_rows_do_not_count(self, records):
        (before, after, _) = count_training_data(records, table_of(row(status="rejected")), ["CrossSlice"])
        assert (before.boxes, after.boxes) == (4, 4)

    def test_counts_of_parts_add_up(self, records, rows):
        ledger, order = table_of(*rows), ["CrossSlice", "IntraPatient", "CrossDataset"]
        parts = [count_training_data([r], ledger[ledger["volume"] == r["volume"]], order) for r in records]
        total = add_counts(add_counts(parts[0], parts[1]), parts[2])
        assert total == count_training_data(records, ledger, order)

    def test_strategies_are_told_in_the_papers_order(self, rows):
        ledger = table_of(*rows[::-1], row(12, "z", strategy="Another"))
        assert strategies_of(ledger) == ["CrossSlice", "IntraPatient", "CrossDataset", "Another"]
