"""Config files are found by name, run no code, and say in a line what is wrong with them."""

import pytest

from lens_d2.config import load_config
from lens_d2.io.errors import DataError


def test_a_name_is_looked_up_in_the_projects_configs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config("lens_multi.yaml").MODEL.DENSENET.OUT_CHANNELS == 512
    for name in ("phantom/lens_multi.yaml", "configs/phantom/lens_multi.yaml"):
        assert load_config(name).MODEL.DENSENET.OUT_CHANNELS == 48
    with pytest.raises(DataError, match="no such config file"):
        load_config("../setup.py")


@pytest.mark.parametrize("inherited", [False, True])
def test_a_config_runs_no_code(tmp_path, inherited):
    bad, ran = tmp_path / "bad.yaml", tmp_path / "ran"
    bad.write_text(f'OUTPUT_DIR: !!python/object/apply:os.system ["touch {ran}"]\n')
    given = tmp_path / "mine.yaml" if inherited else bad
    if inherited:
        given.write_text("_BASE_: bad.yaml\n")
    with pytest.raises(DataError, match=r"bad.yaml: .*python/object/apply.* in line 1") as caught:
        load_config(given)
    assert not ran.exists() and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: [", "not readable as YAML"),
        ("SOLVER:\n  MAX_ITER: 3\nSOLVER:\n  BASE_LR: 0.01\n", "SOLVER appears twice"),
        ("SOLVER: {BASE_LR: 0.1, BASE_LR: 0.2}\n", "BASE_LR appears twice"),
        ("_BASE_: doubled.yaml\n", "doubled.yaml: SEED appears twice"),
        ("_BASE_: [doubled.yaml]\n", "doubled.yaml: SEED appears twice"),
        ("- 1\n", "cannot be used"),
        ("_BASE_: mine.yaml\n", "leads back to itself"),
        ("_BASE_: absent.yaml\n", "cannot be read"),
        ("SOLVER:\n  BASE_LRR: 1\nVERSION: 2\n", "no config key SOLVER.BASE_LRR; did you mean SOLVER.BASE_LR"),
    ],
)
def test_a_damaged_config_is_a_line(tmp_path, text, fault):
    (tmp_path / "mine.yaml").write_text(text)
    (tmp_path / "doubled.yaml").write_text("SEED: 1\nSEED: 2\n")
    with pytest.raises(DataError, match=fault) as caught:
        load_config(tmp_path / "mine.yaml")
    assert "\n" not in str(caught.value)
