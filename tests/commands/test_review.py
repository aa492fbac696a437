"""The command ``review``: what it needs. (The page and its verdicts: tests/export/test_review_page.py.)"""

from lens_d2.commands import main


def test_it_needs_a_dataset_or_verdicts(tmp_path, capsys):
    assert main(["review", str(tmp_path / "ledger.csv")]) == 2
    assert capsys.readouterr().err.startswith("--dataset: not given: it is needed to write a page")
