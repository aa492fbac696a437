"""Tables as files: all that come along can be run, and what is wrong in one is a line."""

import sys
from pathlib import Path

import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog

from experiments.reproduce.records import harvest_numbers
from experiments.reproduce.render import FORMATS, PLAIN
from experiments.reproduce.tables import READERS_KEY, read_table, table_names
from lens_d2.config import add_lens_config, load_config
from lens_d2.engine import allowed, checks
from lens_d2.io.config_files import all_keys
from lens_d2.io.errors import DataError

PAPERS = {f"lens-{name}" for name in ("1", "2", "3", "4", "fig6")}
PAPERS |= {f"harvester-{name}" for name in ("1", "2", "3", "4", "5", "fig7", "fig9")}
MINIMAL = {
    "title": "T",
    "source": "S",
    "cohort": {"size": "tiny", "seed": 0},
    "dataset": "phantom_luna_val",
    "config": "configs/phantom/lens_multi.yaml",
    "columns": {"Average": "average_sensitivity"},
    "rows": [{"name": "A"}, {"name": "B", "opts": {"SOLVER.MAX_ITER": 2}}],
}


def write(folder: Path, **changes) -> str:
    path = folder / "table.yaml"
    path.write_text(yaml.safe_dump({**MINIMAL, **changes}))
    return str(path)


@pytest.fixture
def known_keys():
    from detectron2.config import get_cfg

    cfg = get_cfg()
    add_lens_config(cfg)
    return set(all_keys(cfg))


@pytest.fixture
def catalogs():
    before = set(DatasetCatalog.list())
    yield
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    for name in [name for name in sys.modules if name.startswith("lens_d2_reader_")]:
        del sys.modules[name]


def test_all_tables_of_both_papers_are_here():
    assert set(table_names()) >= PAPERS | {"gap", "budget"}


@pytest.mark.parametrize("name", table_names())
def test_every_run_of_a_table_has_a_config_keys_and_datasets_that_exist(name, repo_root, known_keys, catalogs):
    table, configs = read_table(name), {}
    for run in table.runs:
        assert {*run.opts, *run.given} <= known_keys
        opts = dict(run.opts)
        opts |= {key: of.value.format(__file__) for key, of in run.given.items()}
        readers = [str(repo_root / path) for path in opts.pop(READERS_KEY, ())]
        words = [word for pair in {**opts, READERS_KEY: readers}.items() for word in map(str, pair)]
        configs[run] = cfg = load_config(run.config, words)
        allowed.check_names(cfg)
        checks.check_training(cfg)
    for row in table.rows:
        cfg = configs.get(row.run)
        if cfg is None or row.run.kind == "study":
            continue
        assert ("harvest" if row.harvest else row.stage) in (cfg.STAGES or [""])
        assert row.dataset in (cfg.DATASETS.TEST if not row.harvest else [cfg.HARVEST.TEST])
        assert row.output in ("", *cfg.MODEL.LENS.EXPERTS)


@pytest.mark.parametrize("name", table_names())
def test_columns_are_metrics(name):
    """Names that an evaluation, a harvest or a run gives."""
    rounds = [{"labels": "R_H", "round": 0, "R@100P": 0.4}]
    rounds += [{"labels": f"{n}^+", "round": n, "mean": 0.5} for n in range(1, 7)]
    known = {*FORMATS, "average_sensitivity", "ap", "mean", "R@100P", *(f"R@{p}P" for p in (80, 85, 90, 95))}
    known |= {f"sensitivity@{fps:g}" for fps in (0.125, 0.25, 0.5, 1, 2, 4, 8, 16)}
    known |= set(harvest_numbers(rounds, "rounds"))
    table = read_table(name)
    assert {m for m in table.columns.values() if not m.startswith(PLAIN)} | {table.compare} <= known


def test_rows_share_runs_within_a_table_and_among_tables():
    first, third, fourth = (read_table(f"lens-{number}") for number in (1, 3, 4))
    assert len({row.run for row in first.rows}) == 3
    by_name = {row.name: row for table in (first, third, fourth) for row in table.rows}
    assert by_name["(a) AFP"].run == by_name["No mining"].run == by_name["Single dataset"].run
    assert by_name["(d) + missing annotation mining"].run == by_name["Proposed"].run
    assert by_name["+ Unlabeled"].run.needs == (by_name["Proposed"].run,)
    assert by_name["Separate models"].run.members[0] == by_name["Single dataset"].run
    order = third.runs
    assert order.index(by_name["Proposed"].run) < order.index(by_name["+ Cross-slice"].run)


def test_rounds_are_shared_and_do_not_wait_for_other_methods():
    rows = {row.name: row.run for row in read_table("harvester-1").rows}
    mined, first, third, fourth = (
        rows[name] for name in ("MGTM-SLLP", "P_H^R and P_H,1", "P_H^R and P_H,1..3^+", "P_H^R and P_H,1..4^+")
    )
    assert first == third != fourth
    assert mined.kind == "ledger" and mined.needs[0] not in third.needs
    assert mined.given["HARVEST.OTHER_LEDGERS"].value == "(('MGTM-SLLP', '{}'),)"


def test_what_is_given_and_overruled_makes_another_run(tmp_path):
    plain = read_table(write(tmp_path)).rows[0].run
    assert read_table(write(tmp_path), opts={"SEED": 3}).rows[0].run != plain
    assert read_table(write(tmp_path), cohort={"seed": 5}).cohort.seed == 5
    assert plain == read_table(write(tmp_path, title="Other")).rows[0].run


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"colums": {}}, "the table has an unknown key colums; did you mean columns?"),
        ({"cohort": {"size": "tiny"}}, "cohort has no seed"),
        ({"gap": ["A"]}, "gap is ['A']; it has to name two rows of the table"),
        ({"rows": [{"name": "A", "stag": "train"}]}, "a row has an unknown key stag; did you mean stage?"),
        ({"rows": [{"name": "A"}, {"name": "A"}]}, "two rows or runs are called A; give each a name of its own"),
        ({"rows": [{"name": "A", "paper": {"Averag": 1}}]}, "A: no column Averag; did you mean Average?"),
        ({"rows": [{"name": "A", "against": "B"}]}, "A: no row B; there are A"),
        ({"rows": [{"name": "A", "against": "B"}], "runs": {"B": {}}}, "A: no row B; there are A"),
        ({"rows": [{"name": "A", "run": "B"}]}, "no row or run B; there are A"),
        (
            {
                "rows": [
                    {"name": "A", "given": {"K": {"run": "A", "file": "f", "labels": ["a"], "strategies": ["b"]}}}
                ]
            },
            "given of A: labels, which are a harvest's, go with nothing else",
        ),
        ({"rows": [{"name": "A", "ensemble": ["A"]}]}, "A needs itself"),
        ({"rows": [{"name": "A", "given": {"MODEL.WEIGHTS": {"run": "A"}}}]}, "given of A has no file"),
        ({"rows": [{"name": "A", "run": "lens-9/B"}]}, "no such table; did you mean lens-4 or lens-3 or lens-2?"),
        ({"rows": None}, "the table has no rows"),
        ({"cohort": []}, "the table has no cohort"),
        ({"columns": ["a"]}, "the table: columns is ['a'], and a mapping belongs there"),
        ({"rows": [{"name": "A", "paper": 7}]}, "a row: paper is 7, and a mapping belongs there"),
        (
            {"rows": [{"name": "A", "given": {"K": {"run": "A", "file": "f", "verdicts": 3}}}]},
            "given of A: verdicts is 3, and a list belongs there",
        ),
        (
            {"cohort": {"seed": 0, "size": "gigantic"}},
            "cohort is {'seed': 0, 'size': 'gigantic'}; a size (tiny, small, standard, study, large) and a whole "
            "number as seed are needed",
        ),
        ({"config": ""}, "A has no config, and the table has none for all rows"),
    ],
)
def test_a_fault_is_a_line_that_names_file_and_key(tmp_path, changes, fault):
    with pytest.raises(DataError) as caught:
        read_table(write(tmp_path, **changes))
    assert str(caught.value).endswith(f": {fault}")
    assert "table.yaml" in str(caught.value) or "lens-9" in str(caught.value)
