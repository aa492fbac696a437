"""Lesion labels in LesaNet's layout: body part, type and attribute, text-mined and so with gaps and doubts.

The layout is that of the released ``text_mined_labels_171_and_split.json``: ``term_list``, and for each split the
row numbers of ``DL_info.csv`` (from 0) with the indices of the terms that a report's sentence names for certain,
with doubt, and (train only) of something else.
"""

from __future__ import annotations

import csv
import io

# term: (class, parents, exclusive terms)
ONTOLOGY: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "chest": ("bodypart", (), ()),
    "abdomen": ("bodypart", (), ()),
    "upper abdomen": ("bodypart", ("abdomen",), ()),
    "retroperitoneum": ("bodypart", ("abdomen",), ()),
    "body wall": ("bodypart", (), ()),
    "lung": ("bodypart", ("chest",), ("liver", "kidney", "bone", "mediastinum", "adrenal gland")),
    "right lung": ("bodypart", ("lung",), ("left lung",)),
    "left lung": ("bodypart", ("lung",), ("right lung",)),
    "mediastinum": ("bodypart", ("chest",), ("lung", "liver", "kidney", "bone", "adrenal gland")),
    "hilum": ("bodypart", ("mediastinum",), ()),
    "liver": ("bodypart", ("upper abdomen",), ("lung", "kidney", "bone", "mediastinum", "adrenal gland")),
    "kidney": ("bodypart", ("retroperitoneum",), ("lung", "liver", "bone", "mediastinum", "adrenal gland")),
    "right kidney": ("bodypart", ("kidney",), ("left kidney",)),
    "left kidney": ("bodypart", ("kidney",), ("right kidney",)),
    "adrenal gland": ("bodypart", ("retroperitoneum",), ("lung", "liver", "bone", "kidney", "mediastinum")),
    "right adrenal gland": ("bodypart", ("adrenal gland",), ("left adrenal gland",)),
    "left adrenal gland": ("bodypart", ("adrenal gland",), ("right adrenal gland",)),
    "bone": ("bodypart", (), ("lung", "liver", "kidney", "mediastinum", "adrenal gland")),
    "spine": ("bodypart", ("bone",), ("rib", "sternum")),
    "rib": ("bodypart", ("bone",), ("spine", "sternum")),
    "sternum": ("bodypart", ("bone",), ("spine", "rib")),
    "paraaortic": ("bodypart", ("retroperitoneum",), ()),
    "mesentery": ("bodypart", ("abdomen",), ()),
    "porta hepatis": ("bodypart", ("upper abdomen",), ()),
    "subcutaneous": ("bodypart", ("body wall",), ("muscle",)),
    "muscle": ("bodypart", ("body wall",), ("subcutaneous",)),
    "nodule": ("type", (), ()),
    "mass": ("type", (), ()),
    "lung nodule": ("type", ("nodule", "lung"), ()),
    "lymph node": ("type", (), ("cyst", "nodule")),
    "mediastinum lymph node": ("type", ("lymph node", "mediastinum"), ("abdomen lymph node",)),
    "abdomen lymph node": ("type", ("lymph node", "abdomen"), ("mediastinum lymph node",)),
    "cyst": ("type", (), ("lymph node", "metastasis")),
    "kidney cyst": ("type", ("cyst", "kidney"), ()),
    "metastasis": ("type", (), ("cyst", "adenoma")),
    "adenoma": ("type", (), ("metastasis",)),
    "soft tissue": ("type", (), ("bone",)),
    "large": ("attribute", (), ("subcentimeter",)),
    "subcentimeter": ("attribute", (), ("large",)),
    "enlargement": ("attribute", (), ()),
    "hypoattenuation": ("attribute", (), ("enhancing",)),
    "enhancing": ("attribute", (), ("hypoattenuation",)),
    "solid": ("attribute", (), ("ground-glass opacity",)),
    "ground-glass opacity": ("attribute", (), ("solid",)),
    "cavitary": ("attribute", (), ()),
    "spiculated": ("attribute", (), ()),
    "subpleural": ("attribute", (), ()),
    "necrosis": ("attribute", (), ()),
    "lytic": ("attribute", (), ("sclerotic",)),
    "sclerotic": ("attribute", (), ("lytic",)),
    "exophytic": ("attribute", (), ()),
}
TERMS = list(ONTOLOGY)
INDEX = {term: number for number, term in enumerate(TERMS)}
SYNONYMS = {"right hilum": "hilum", "left hilum": "hilum", "aortocaval": "paraaortic", "paracaval": "paraaortic"}
OF_KIND = {
    "lung_nodule": "lung", "liver_tumour": "liver", "mediastinal_node": "mediastinum lymph node",
    "abdominal_node": "abdomen lymph node", "kidney_lesion": "kidney", "bone_lesion": "bone",
    "adrenal_lesion": "adrenal gland", "soft_tissue_lesion": "body wall",
}  # fmt: skip


def ancestors(term: str) -> set[str]:
    """The parents of a term, and theirs."""
    found = set(ONTOLOGY[term][1])
    for parent in ONTOLOGY[term][1]:
        found |= ancestors(parent)
    return found


def true_terms(lesion: dict) -> list[str]:
    """The terms that hold for an entry of the hidden truth, parents included, in the ontology's order."""
    own = {SYNONYMS.get(term, term) for term in lesion["attributes"]} | {OF_KIND[lesion["type"]]}
    if lesion["diameter_mm"] > 30:
        own.add("large")
    elif lesion["diameter_mm"] < 10:
        own.add("subcentimeter")
    if lesion["type"] == "lung_nodule" and "nodule" in own:
        own.add("lung nodule")
    if lesion["type"] == "kidney_lesion" and "cyst" in own:
        own.add("kidney cyst")
    own = {term for term in own if term in INDEX}
    for term in list(own):
        own |= ancestors(term)
    return [term for term in TERMS if term in own]


def text_mined(rows: list[dict], lesions: list[dict | None], rng) -> dict:
    """Draw the labels that reports would give: some of the true ones, some in doubt, some of other lesions.

    Args:
        rows: of ``DL_info.csv``, in the file's order.
        lesions: entry of the hidden truth for each row, None if the row is noisy.
        rng: generator.

    Returns:
        Content of the JSON file.
    """
    names = {1: "train", 2: "val", 3: "test"}
    content: dict = {"term_list": TERMS}
    for split in names.values():
        for part in ("lesion_idxs", "relevant_labels", "uncertain_labels"):
            content[f"{split}_{part}"] = []
    content["train_irrelevant_labels"] = []
    for number, (row, lesion) in enumerate(zip(rows, lesions, strict=True)):
        if lesion is None or rng.random() < 0.25:  # a quarter of the marks are in no sentence
            continue
        split = names[row["Train_Val_Test"]]
        terms = true_terms(lesion)
        parents = set().union(*(ancestors(t) for t in terms))
        kept = [INDEX[t] for t in terms if rng.random() < (0.45 if t in parents else 0.78)]
        doubted = [t for t in kept if rng.random() < 0.06]
        content[f"{split}_lesion_idxs"].append(number)
        content[f"{split}_relevant_labels"].append([t for t in kept if t not in doubted])
        content[f"{split}_uncertain_labels"].append(doubted)
        if split == "train":
            other = [int(rng.integers(len(TERMS)))] if rng.random() < 0.1 else []
            content["train_irrelevant_labels"].append(other)
    return content


def hand_labelled(rows: list[dict], lesions: list[dict | None]) -> list[dict]:
    """Content of ``hand_labeled_test_set.json``: every true term of every test lesion."""
    return [
        {"text": " ".join(lesion["attributes"]), "lesion_idx": number, "expanded_terms": true_terms(lesion)}
        for number, (row, lesion) in enumerate(zip(rows, lesions, strict=True))
        if lesion is not None and row["Train_Val_Test"] == 3
    ]


def ontology_table() -> str:
    """The ontology as CSV, with the columns of LesaNet's sheet; lists are parted by " | "."""
    children: dict[str, list[str]] = {term: [] for term in TERMS}
    for term, (_, parents, _) in ONTOLOGY.items():
        for parent in parents:
            children[parent].append(term)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["id", "class", "term", "synonyms", "term_exclusive", "term_parents", "term_children"])
    for term, (kind, parents, exclusive) in ONTOLOGY.items():
        row = [INDEX[term], kind, term, term, *(" | ".join(v) for v in (exclusive, parents, children[term]))]
        writer.writerow(row)
    return out.getvalue()
