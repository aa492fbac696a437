"""--attributes: sensitivity by diameter, type, organ and slice thickness."""

import pytest

A, B = "000001_01_01_001-020", "000002_01_01_001-020"
TRUTH = {A: [[10, 10, 2, 20, 20, 4], [50, 50, 6, 90, 90, 9]], B: [[30, 30, 5, 40, 40, 6]]}
FOUND = {A: [[10, 10, 2, 20, 20, 4, 0.9], [200, 200, 1, 210, 210, 2, 0.8]], B: [[30, 30, 5, 40, 40, 6, 0.5]]}
HEADER = "volume,lesion,diameter_mm,type,organ,thickness_mm\n"
ROWS = f"{A},0,8,nodule,lung,5\n{A},1,30,,liver,5\n{B},0,10.5,nodule,,1\n"


@pytest.fixture
def stratify(evaluate, write):
    def run(table):
        files = ("--ground-truth", write("t.json", TRUTH), "--predictions", write("p.json", FOUND))
        return evaluate("--protocol", "lens3d", *files, "--attributes", write("a.csv", table))

    return run


def test_strata_share_the_false_positives_of_all(stratify):
    strata = stratify(HEADER + ROWS)[1]["strata"]
    assert {key: list(groups) for key, groups in strata.items()} == {
        "diameter_mm": ["< 10", "10 to 30", ">= 30"],
        "type": ["nodule", "unknown"],
        "organ": ["liver", "lung", "unknown"],
        "thickness_mm": ["< 2.5", ">= 2.5"],
    }
    assert strata["type"]["nodule"]["num_lesions"] == 2
    # The only false positive, half a one per volume, comes before the second nodule.
    assert strata["type"]["nodule"]["sensitivity"] == [0.5, 0.5, 1, 1, 1, 1, 1]
    assert strata["organ"]["lung"]["average_sensitivity"] == 1.0
    assert strata["diameter_mm"][">= 30"]["sensitivity"] == [0] * 7


def test_lesions_that_the_table_does_not_have_are_unknown(stratify):
    strata = stratify("volume,lesion_index,type\n" + f"{A}.annot,1,cyst\n")[1]["strata"]
    assert strata["type"]["unknown"]["num_lesions"] == 2 and strata["type"]["cyst"]["num_lesions"] == 1


@pytest.mark.parametrize(
    "table, words",
    [
        (f"volume,lesion\n{A},0\n", ["diameter_mm"]),
        (f"volume,number,type\n{A},0,x\n", ["lesion"]),
        (HEADER + "c,0,8,,,\n", ["line 2", "volume c"]),
        (HEADER + f"{A},2,8,,,\n", ["line 2", "lesion '2'"]),
        (HEADER + f"{A},x,8,,,\n", ["line 2", "lesion 'x'"]),
        (HEADER + f"{A},0,large,,,\n", ["line 2", "'large'"]),
        (HEADER + f"{A},0,nan,,,\n", ["line 2", "'nan'"]),
        (HEADER + f"{A},0,8,,,\n{A},0,8,,,\n", [A, "lesion 0", "twice"]),
        ("", ["empty"]),
    ],
)
def test_bad_tables(stratify, table, words):
    status, metrics, error = stratify(table)
    assert status == 2 and metrics is None
    assert all(word in error for word in ["a.csv", *words]), error


def test_luna16(evaluate, golden, write):
    folder = golden / "luna16"
    table = write("a.csv", "seriesuid,lesion,diameter_mm\nscan000,0,12.9\nscan000,1,22.2\nscan001,0,5\n")
    files = ["--ground-truth", folder / "annotations.csv", "--predictions", folder / "predictions.csv"]
    files += ["--seriesuids", folder / "seriesuids.csv", "--excluded", folder / "annotations_excluded.csv"]
    _, metrics, _ = evaluate("--protocol", "luna16", *files, "--attributes", table)
    assert metrics["strata"]["diameter_mm"]["10 to 30"]["num_lesions"] == 2
    _, metrics, _ = evaluate(
        "--protocol", "luna16", *files, "--attributes", write("a.csv", "volume,lesion,type\nscan000,0,x\n")
    )
    lesions = metrics["strata"]["type"].values()
    assert sum(group["num_lesions"] for group in lesions) == metrics["num_lesions"]
    parts = [group["num_lesions"] * group["average_sensitivity"] for group in lesions]
    assert sum(parts) / metrics["num_lesions"] == pytest.approx(metrics["average_sensitivity"])
