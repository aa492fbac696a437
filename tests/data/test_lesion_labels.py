"""Labels of lesions and their relations."""

import json

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from helpers import marks

from lens_d2.data.labelled_lesions import LabelledLesions
from lens_d2.data.lesion_labels import (
    LabelRelations,
    LesionLabels,
    TagTargets,
    mark_row,
    read_hand_labels,
    read_label_files,
    read_labels,
    read_ontology,
)
from lens_d2.io.errors import DataError
from lens_d2.structures.records import make_lesion

TERMS = ("chest", "lung", "left lung", "right lung", "liver", "nodule", "hilar node")
ONTOLOGY = """\
id,class,term,synonyms,term_exclusive,term_parents,term_children
1,bodypart,chest,chest,abdomen,,
2,bodypart,abdomen,abdomen,chest,,
3,bodypart,lung,lung | pulmonary,hilum,chest,left lung | right lung
4,bodypart,left lung,left lung,right lung,lung,
5,bodypart,right lung,right lung,,lung,
6,bodypart,liver,liver,,abdomen,
7,type,nodule,nodule,,,
8,type,hilar node,hilar node,nodule,lung | hilum | unheard of,
"""


def write_labels(path, **changes):
    content = {"term_list": list(TERMS), "train_irrelevant_labels": []}
    for split in ("train", "val", "test"):
        content |= {f"{split}_lesion_idxs": [], f"{split}_relevant_labels": [], f"{split}_uncertain_labels": []}
    content |= {
        "train_lesion_idxs": [4, 2],
        "train_relevant_labels": [[2, 5, 2], []],
        "train_uncertain_labels": [[4], [5]],
    }
    path.write_text(json.dumps(content | changes))
    return path


@pytest.fixture
def relations(tmp_path):
    (tmp_path / "ontology.csv").write_text(ONTOLOGY)
    return LabelRelations.from_ontology(TERMS, read_ontology(tmp_path / "ontology.csv"))


def names(row):
    return {TERMS[i] for i in np.flatnonzero(row)}


# Files


def test_the_released_ontology(shared_dir):
    ontology = read_ontology(shared_dir / "annotations/lesanet/lesion_ontology_181022.xlsx")
    assert len(ontology) == 333 and {term.kind for term in ontology.values()} == {"bodypart", "type", "attribute"}
    assert ontology["liver"].parents == ("abdomen", "upper abdomen")
    assert {"spleen", "stomach"} <= set(ontology["liver"].exclusive) and ontology["soft tissue"].exclusive == ()


def test_the_released_labels(shared_dir):
    folder = shared_dir / "annotations/lesanet"
    labels = read_labels(folder / "text_mined_labels_171_and_split.json")
    assert len(labels.terms) == 171 and labels.terms[:3] == ("chest", "abdomen", "lung")
    assert {split: len(rows) for split, rows in labels.lesions.items()} == {
        "train": 20266,
        "val": 1976,
        "test": 1879,
    }
    # The first two of the file: rows 7 and 8; the fourth names labels more than once.
    assert labels.lesions["train"][7].relevant == (3,)
    assert labels.lesions["train"][10].relevant == (99, 1, 7, 31, 5, 4)

    relations = LabelRelations.from_ontology(labels.terms, read_ontology(folder / "lesion_ontology_181022.xlsx"))
    number = {term: i for i, term in enumerate(labels.terms)}
    assert {labels.terms[i] for i in np.flatnonzero(relations.implies[number["right lower lobe"]])} == {
        "right lung", "lung", "chest",
    }  # fmt: skip
    assert relations.excludes[number["right lung"], number["left lower lobe"]]
    assert relations.excludes[number["lung nodule"], number["liver"]]
    assert not (relations.implies & relations.excludes).any()
    np.testing.assert_array_equal(relations.excludes, relations.excludes.T)

    by_hand = read_hand_labels(folder / "hand_labeled_test_set.json")
    assert len(by_hand) == 500 and "left lower lobe" in by_hand[24941]


def test_a_small_file(tmp_path):
    labels = read_labels(write_labels(tmp_path / "labels.json"))
    assert labels.terms == TERMS and labels.lesions["val"] == {}
    assert labels.lesions["train"] == {4: LesionLabels((2, 5), (4,)), 2: LesionLabels((), (5,))}


@pytest.mark.parametrize(
    "changes, fault",
    [
        ({"term_list": None}, "term_list"),
        ({"term_list": ["chest", "chest"]}, "term_list"),
        ({"train_relevant_labels": [[2]]}, "train_relevant_labels is missing or not as long"),
        ({"val_uncertain_labels": None}, "val_uncertain_labels is missing"),
        ({"train_lesion_idxs": [4, 4]}, "row numbers, each once"),
        ({"train_lesion_idxs": [4, -1]}, "row numbers"),
        ({"train_uncertain_labels": [[], [7]]}, "train_uncertain_labels, entry 1"),
        ({"train_relevant_labels": [["lung"], []]}, "train_relevant_labels, entry 0"),
        ({"train_relevant_labels": [[True], []]}, "train_relevant_labels, entry 0"),
        ({"train_relevant_labels": [3, []]}, "train_relevant_labels, entry 0"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(tmp_path, changes, fault):
    path = write_labels(tmp_path / "labels.json", **changes)
    with pytest.raises(DataError, match=f"labels.json: .*{fault}"):
        read_labels(path)


@pytest.mark.parametrize("read", [read_labels, read_hand_labels])
def test_files_that_are_no_json(tmp_path, read):
    (tmp_path / "labels.json").write_text('{"term_list": [')
    with pytest.raises(DataError, match="not readable as JSON"):
        read(tmp_path / "labels.json")
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "absent.json")
    (tmp_path / "labels.json").write_text("[3]")
    with pytest.raises(DataError, match="labels.json: "):
        read(tmp_path / "labels.json")


@pytest.mark.parametrize(
    "name, content, fault",
    [
        ("absent.csv", None, "cannot be read"),
        ("absent.xlsx", None, "cannot be read"),
        ("a.txt", "x", "not one of .xlsx, .csv"),
        ("a.xlsx", "no zip file", "not a table"),
        ("a.csv", "id,term\n1,lung\n", "no column class, term_exclusive, term_parents"),
        ("a.csv", ONTOLOGY + "9,type,lung,,,,\n", "row 10: the term 'lung' is there twice"),
        ("a.csv", ONTOLOGY + "9,type,,,,,\n", "row 10: the term '' is empty"),
    ],
)
def test_what_is_wrong_with_an_ontology_is_told(tmp_path, name, content, fault):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=fault):
        read_ontology(tmp_path / name)


# Relations


def test_a_label_implies_its_parents_and_theirs(relations):
    assert names(relations.implies[TERMS.index("left lung")]) == {"lung", "chest"}
    assert names(relations.implies[TERMS.index("chest")]) == set()


def test_exclusions_are_inherited_and_mutual(relations):
    # Of chest and abdomen, the latter not a label here; of left and right lung, said of one side only.
    assert names(relations.excludes[TERMS.index("liver")]) == {
        "chest",
        "lung",
        "left lung",
        "right lung",
        "hilar node",
    }
    assert names(relations.excludes[TERMS.index("right lung")]) == {"left lung", "liver", "hilar node"}


def test_a_label_does_not_exclude_what_it_implies(relations):
    """A hilar node's parents lung and hilum exclude each other; still it is in the lung."""
    excluded = names(relations.excludes[TERMS.index("hilar node")])
    assert "lung" not in excluded and "chest" not in excluded and {"liver", "nodule", "left lung"} <= excluded


def test_targets(relations):
    left, nodule, liver = (TERMS.index(name) for name in ("left lung", "nodule", "liver"))
    lesions = [
        LesionLabels((left, nodule), ()),
        LesionLabels((left,), (liver, nodule)),
        LesionLabels((), (left,)),
        LesionLabels((left, liver), ()),
    ]
    positive, known, reliable = relations.targets(lesions)
    assert names(positive[0]) == {"left lung", "lung", "chest", "nodule"}
    assert known[0].all() and names(reliable[0] & ~positive[0]) == {"right lung", "liver", "hilar node"}
    # In doubt: not known, unless a label that is certain excludes it.
    assert names(~known[1]) == {"nodule"}
    # Doubt goes to the parents as well.
    assert names(positive[2]) == set() and names(~known[2]) == {"left lung", "lung", "chest"}
    assert not reliable[2].any()
    # Contradicting reports: what is said holds.
    assert {"left lung", "liver"} <= names(positive[3])


def test_class_weights_balance_both_classes(relations):
    left, nodule = TERMS.index("left lung"), TERMS.index("nodule")
    rows = [LesionLabels((left,), ())] + [LesionLabels((nodule,), ())] * 7
    lesions = LabelledLesions(np.zeros(8, int), np.zeros((8, 6)), relations.targets(rows))
    positive, negative = lesions.class_weights(3.0)
    assert positive[nodule] == pytest.approx(8 / 14) and negative[nodule] == pytest.approx(4)
    assert positive[left] == 3.0 and negative[left] == pytest.approx(8 / 14)  # 4, but for the limit
    assert positive[TERMS.index("liver")] == 3.0 and negative[TERMS.index("liver")] == 0.5
    # No label at all is infinitely heavy.
    everything = LabelledLesions(
        np.zeros(1, int), np.zeros((1, 6)), relations.targets([LesionLabels((nodule,), ())])
    )
    assert np.isfinite(everything.class_weights()).all()


# Records


def test_labels_find_their_marks_by_row(relations):
    records = [
        marks.record_of("1", "1_1_1", (0, 3, [1, 2, 5, 6]), (1, 4, [2, 2, 6, 6])),
        marks.record_of("1", "1_2_1", (5, 7, [3, 3, 8, 9])),
    ]
    # The lesion of a released box counts in its sub-volume: its number is no row.
    records[0]["lesions"].append(make_lesion("1_1_1_001-020/5", [[2, 0, 0, 1, 1]]))
    assert [mark_row(lesion) for record in records for lesion in record["lesions"]] == [0, 1, None, 5]
    labels = {
        1: LesionLabels((2,), ()),
        0: LesionLabels((), (2,)),
        5: LesionLabels((4,), ()),
        9: LesionLabels((1,), ()),
    }
    lesions = LabelledLesions.from_records(records, labels, relations)
    assert lesions.record.tolist() == [0, 1]  # row 0 has a doubtful label alone
    np.testing.assert_array_equal(lesions.boxes, [[2, 2, 4, 6, 6, 4], [3, 3, 7, 8, 9, 7]])
    assert names(lesions.targets.positive[1]) == {"liver"}
    assert sorted(lesions.draw(np.random.default_rng(0))) == [0, 1]
    assert len(LabelledLesions.from_records(records, {}, relations)) == 0


def test_targets_of_a_tag_head(tmp_path):
    """12 lesions, bright and dark by turns; dark implies hole, and each excludes the other."""
    cfg = marks.embedding_cfg(tmp_path)
    marks.write_labels(cfg)
    cfg.MODEL.MULAN.NUM_TAGS = 3
    cfg.DATASETS.TRAIN = ("marks_with_a_table", "others")
    MetadataCatalog.get("marks_with_a_table").set(expert="deeplesion", mark_table=str(tmp_path / "DL_info.csv"))
    MetadataCatalog.get("others").set(expert="kits", mark_table=None)
    try:
        tags = TagTargets.from_config(cfg)
    finally:
        for name in cfg.DATASETS.TRAIN:
            MetadataCatalog.remove(name)
    lesions = [
        make_lesion("v/0", [[0, 0, 0, 5, 5]], recist=[0.0] * 8),
        make_lesion("v/3", [[0, 0, 0, 5, 5]], recist=[0.0] * 8),
        make_lesion("v/12", [[0, 0, 0, 5, 5]], recist=[0.0] * 8),  # no row of the file
        make_lesion("v/0", [[0, 0, 0, 5, 5]]),  # no mark
    ]
    targets = tags.of(lesions, "deeplesion")
    none = [False] * 3
    assert targets["tags"].tolist() == [[True, False, False], [False, True, True], none, none]
    assert targets["tag_weights"].tolist() == [[1, 1, 1], [1, 1, 1], [0, 0, 0], [0, 0, 0]]
    empty = tags.of([], "deeplesion")
    assert empty["tags"].shape == empty["tag_weights"].shape == (0, 3)
    assert not tags.of(lesions, "kits")["tag_weights"].any()  # numbers in its ids count something else


def test_a_table_of_marks_that_was_cut_is_refused(tmp_path):
    """Its rows would be other lesions than those that the labels count."""
    cfg = marks.embedding_cfg(tmp_path)
    marks.write_labels(cfg)
    table = tmp_path / "DL_info.csv"
    cfg.MODEL.EMBEDDING.DATASETS = ("marks_of_a_cut_table",)
    MetadataCatalog.get("marks_of_a_cut_table").mark_table = str(table)
    try:
        table.write_text("File_name\n" + "a.png\n" * 12)
        read_label_files(cfg)
        table.write_text("File_name\n" + "a.png\n" * 11)
        with pytest.raises(DataError, match=r"labels up to row 11, and .*DL_info.csv has 11 rows"):
            read_label_files(cfg)
    finally:
        MetadataCatalog.remove("marks_of_a_cut_table")


def test_a_head_with_another_number_of_tags_is_refused(tmp_path):
    cfg = marks.embedding_cfg(tmp_path)
    marks.write_labels(cfg)
    with pytest.raises(DataError, match=r"NUM_TAGS: 171, and .*labels.json has 3 labels: set it to 3"):
        TagTargets.from_config(cfg)
