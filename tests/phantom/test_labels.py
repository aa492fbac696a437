"""Labels in LesaNet's layout, and the ontology."""

import json

import pandas as pd

from lens_d2.data.lesion_labels import read_hand_labels, read_labels, read_ontology
from lens_d2.phantom import labels as phantom_labels


def test_labels_have_lesanets_layout(root, shared_dir):
    released = json.loads((shared_dir / "annotations/lesanet/text_mined_labels_171_and_split.json").read_text())
    ours = json.loads((root / "lesanet/text_mined_labels.json").read_text())
    assert ours.keys() == released.keys()
    rows = len(pd.read_csv(root / "DeepLesion/DL_info.csv"))
    labels = read_labels(root / "lesanet/text_mined_labels.json")
    assert all(0 <= row < rows for lesions in labels.lesions.values() for row in lesions)
    assert read_ontology(root / "lesanet/ontology.csv").keys() == set(labels.terms)
    assert read_hand_labels(root / "lesanet/hand_labeled_test_set.json")


def test_true_terms_imply_their_parents_and_exclude_their_rivals(truth):
    for entry in truth.values():
        for lesion in entry["lesions"]:
            terms = set(phantom_labels.true_terms(lesion))
            for term in terms:
                _, parents, exclusive = phantom_labels.ONTOLOGY[term]
                assert set(parents) <= terms
                assert not set(exclusive) & terms, (lesion["type"], sorted(terms))
