"""tools/phantom_guards.py: its training sets."""

from detectron2.data import DatasetCatalog, MetadataCatalog

from lens_d2.data.datasets import register_all
from lens_d2.data.datasets.catalog import default_root


def test_the_guards_train_on_the_first_patients_with_their_marks_or_with_the_hidden_truth(
    root, truth, load_script
):
    guards = load_script("tools/phantom_guards.py")
    register_all(root.parent)
    try:
        every = DatasetCatalog.get(guards.UNIVERSAL)
        guards.register(patients=2)
        marked, full = (DatasetCatalog.get(name) for name in (guards.PARTIAL, guards.FULL))
        fully_labelled = [MetadataCatalog.get(name).fully_labelled for name in (guards.PARTIAL, guards.FULL)]
    finally:
        register_all(default_root())
    first_two = sorted({record["patient"] for record in every})[:2]
    assert marked == [record for record in every if record["patient"] in first_two]
    assert [record["volume"] for record in full] == [record["volume"] for record in marked]
    assert [len(record["lesions"]) for record in full] == [len(truth[r["volume"]]["lesions"]) for r in full]
    assert sum(len(record["lesions"]) for record in full) > sum(len(record["lesions"]) for record in marked)
    assert fully_labelled == [False, True]
