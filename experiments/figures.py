"""Draws the papers' figures of examples from a trained model and from a ledger.

    python -m experiments figures experts --config-file configs/phantom/lens_multi.yaml \\
        --dataset phantom_deeplesion_1k_test --output experts.png --opts MODEL.WEIGHTS lens_d2://phantom/lens_multi
    python -m experiments figures harvested --config-file configs/phantom/harvester.yaml \\
        --dataset phantom_deeplesion_vh --ledger ledger.parquet --output harvested.png
    python -m experiments figures embedding --config-file configs/phantom/lens_full.yaml \\
        --dataset phantom_deeplesion_train --ledger ledger.parquet --typed phantom_deeplesion_val \\
        --output embedding.png --opts MODEL.EMBEDDING.WEIGHTS embedding/model_final.pth

``experts`` (LENS, Figs. 3 and 5): a panel for each expert and the fused one, of the sub-volumes in which the
experts differ most. ``harvested`` (Lesion-Harvester, Fig. 10): mined lesions over five slices, long ones beside a
mark first, each of another patient. ``embedding`` (Fig. 12): t-SNE of the embeddings of marked and mined lesions;
one without a type has that of the nearest one with a type, and ``--typed`` names datasets that give types.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lens_d2.config import load_config
from lens_d2.data.cache import build_cache
from lens_d2.data.ledger.merge import apply_ledger
from lens_d2.data.ledger.table import read_ledger
from lens_d2.data.loader import load_records
from lens_d2.engine import allowed, checks
from lens_d2.engine.stages import load_model
from lens_d2.evaluation.plots import plot_embedding
from lens_d2.inference.detector import build_inference
from lens_d2.io.device import fall_back_to_cpu
from lens_d2.io.errors import DataError
from lens_d2.io.progress import progress
from lens_d2.modeling.embedding.embedder import LesionEmbedder
from lens_d2.structures.status import STATUS_OF_RECORD, BoxStatus
from lens_d2.visualization.figures import ExpertCase, draw_experts, draw_harvested, key_slice_of, marked_slices

UNKNOWN = "type unknown"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="figure", required=True, metavar="FIGURE")
    experts = kinds.add_parser("experts", help="what each expert finds (LENS, Figs. 3 and 5)")
    experts.add_argument("--volumes", nargs="+", default=[], metavar="NAME", help="sub-volumes to draw")
    experts.add_argument("--among", type=int, default=30, metavar="N", help="they are chosen from the first N")
    experts.add_argument("--score", type=float, default=0.1, help="detections below it are not drawn")
    harvested = kinds.add_parser("harvested", help="mined lesions over five slices (Lesion-Harvester, Fig. 10)")
    embedding = kinds.add_parser("embedding", help="marked and mined lesions by type (Lesion-Harvester, Fig. 12)")
    embedding.add_argument("--typed", nargs="+", default=[], metavar="NAME", help="datasets that give types")
    for kind in (harvested, embedding):
        kind.add_argument("--ledger", required=True, metavar="FILE", help="what was mined in --dataset")
    for kind in (experts, harvested):
        kind.add_argument("--count", type=int, default=4, metavar="N", help="rows (default: %(default)s)")
    for kind in (experts, harvested, embedding):
        kind.add_argument("--config-file", required=True, metavar="FILE")
        kind.add_argument("--dataset", required=True, metavar="NAME")
        kind.add_argument("--output", type=Path, required=True, metavar="PNG", help="picture to write")
        kind.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="overrides")


def run(args: argparse.Namespace) -> None:
    cfg = load_config(args.config_file, args.opts)
    allowed.check_names(cfg)
    checks.check_input(cfg)
    fall_back_to_cpu(cfg)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    FIGURES[args.figure](cfg, args)
    print(args.output)


def experts(cfg, args: argparse.Namespace) -> None:
    if not cfg.MODEL.WEIGHTS:
        raise DataError("MODEL.WEIGHTS", "empty: add --opts MODEL.WEIGHTS model_final.pth at the end")
    records = load_records((args.dataset,))
    by_name = {record["volume"]: record for record in records}
    absent = [name for name in args.volumes if name not in by_name]
    if absent:
        raise DataError(absent[0], f"no sub-volume of {args.dataset}")
    with_lesions = [record for record in records if record["lesions"]]
    candidates = [by_name[name] for name in args.volumes] or with_lesions[: args.among]
    if not candidates:
        raise DataError(args.dataset, "no sub-volume has a lesion")
    inference = build_inference(cfg, load_model(cfg, cfg.MODEL.WEIGHTS), refined=False)
    cases = [
        ExpertCase(record, inference.detect(inference.cache.open(record)), args.score)
        for record in progress(candidates, "sub-volumes")
    ]
    if not args.volumes:
        cases = sorted(cases, key=lambda case: -case.telling_slice()[1])
        first_of = {case.record["patient"]: case for case in reversed(cases)}
        cases = [case for case in cases if case is first_of[case.record["patient"]]][: args.count]
    draw_experts(args.output, [(case, inference.cache.open(case.record)) for case in cases])


def read_lesions(args: argparse.Namespace) -> list[tuple[dict, dict]]:
    """All lesions of the dataset, given and mined, each with its record.

    Raises:
        DataError: a file cannot be read, the ledger contradicts the dataset, or nothing was mined there.
    """
    records = load_records((args.dataset,))
    merged = apply_ledger(records, read_ledger(args.ledger, records))
    found = [(r, x) for r in merged for x in r["lesions"] if STATUS_OF_RECORD[x["status"]] == BoxStatus.LESION]
    if not any(is_mined(lesion) for _, lesion in found):
        raise DataError(args.ledger, f"no lesion was mined in {args.dataset}")
    return found


def is_mined(lesion: dict) -> bool:
    """Whether a record's lesion is one that was not given."""
    return lesion["status"] != "annotation" and STATUS_OF_RECORD[lesion["status"]] == BoxStatus.LESION


def harvested(cfg, args: argparse.Namespace) -> None:
    cache, best = build_cache(cfg), {}
    mined = [(record, lesion) for record, lesion in read_lesions(args) if is_mined(lesion)]
    for record, lesion in sorted(mined, key=lambda pair: worth_showing(*pair)):
        best[record["patient"]] = (record, lesion)
    chosen = sorted(best.values(), key=lambda pair: worth_showing(*pair))[::-1][: args.count]
    draw_harvested(args.output, [(record, lesion, cache.open(record)) for record, lesion in chosen])


def worth_showing(record: dict, lesion: dict) -> tuple[bool, int]:
    """Sorting key by which a mined lesion is worth showing: a mark beside it, and many slices."""
    return bool(marked_slices(record, lesion)), len(lesion["boxes"])


def embedding(cfg, args: argparse.Namespace) -> None:
    lesions = read_lesions(args)
    typed = [(r, x) for r in load_records(args.typed) for x in r["lesions"] if x["type"]]
    items = [(r, key_slice_of(x), key_box(x)) for r, x in (*lesions, *typed)]
    own, others = np.split(LesionEmbedder(cfg).embed(items), [len(lesions)])
    types = types_of([x["type"] for _, x in lesions], own, [x["type"] for _, x in typed], others)
    points = project(own, max(cfg.SEED, 0), args.dataset)
    plot_embedding(args.output, points, types, np.array([is_mined(x) for _, x in lesions]))


def key_box(lesion: dict) -> list[float]:
    """XYXY_ABS box of a lesion on the slice that :func:`key_slice_of` gives."""
    return next(box[1:] for box in lesion["boxes"] if box[0] == key_slice_of(lesion))


def types_of(
    own: Sequence[str | None], embedding: np.ndarray, known: Sequence[str], known_embedding: np.ndarray
) -> np.ndarray:
    """Types of lesions: their own, or that of the nearest lesion whose type is known.

    Args:
        own: n, None without a type.
        embedding: (n, E) of these, rows of length 1.
        known: m types of further lesions.
        known_embedding: (m, E) of these, rows of length 1.
    """
    with_type = [i for i, kind in enumerate(own) if kind]
    names = np.array([*(own[i] for i in with_type), *known], dtype=object)
    among = np.concatenate([embedding[with_type], known_embedding])
    if not len(among):
        return np.full(len(own), UNKNOWN, dtype=object)
    return names[(embedding @ among.T).argmax(axis=1)]


def project(embedding: np.ndarray, seed: int, source: str) -> np.ndarray:
    """(n, 2) places of n embeddings by t-SNE.

    Raises:
        DataError: there are too few; names ``source``.
    """
    if len(embedding) < 4:
        raise DataError(source, f"{len(embedding)} lesions; at least 4 are needed")
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(embedding) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(embedding)


FIGURES = {"experts": experts, "harvested": harvested, "embedding": embedding}
