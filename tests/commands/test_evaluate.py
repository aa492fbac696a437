"""The command ``evaluate`` as users run it; every command in docs/evaluation.md runs as it stands there."""

import re
import runpy
import shlex
import subprocess
import sys

import pytest


@pytest.fixture
def commands(repo_root):
    text = (repo_root / "docs/evaluation.md").read_text()
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def test_commands(commands, repo_root, tmp_path, monkeypatch):
    """All scripts; test_docs.py parses the others, whose files cannot be here."""
    monkeypatch.chdir(repo_root)
    scripts = [words for words in map(shlex.split, commands) if words[1] != "-m"]
    for number, (python, script, *words) in enumerate(scripts):
        words[words.index("--output") + 1] = str(tmp_path / str(number))
        monkeypatch.setattr(sys, "argv", [script, *words])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(script, run_name="__main__")
        assert python == "python" and ended.value.code == 0
    assert len(scripts) == 8 and len(commands) == 10


def test_as_a_user_runs_it(repo_root, tmp_path):
    """In a process of its own: the exit status, one line of error, no traceback."""
    missing = tmp_path / "absent.pkl"
    words = [
        "--protocol",
        "lens3d",
        "--ground-truth",
        missing,
        "--predictions",
        "tests/golden/lens3d/predictions.json",
    ]
    command = [sys.executable, "tools/evaluate.py", *map(str, words), "--output", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=repo_root, capture_output=True, text=True)
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    lines = [line for line in done.stderr.splitlines() if "Warning" not in line and not line.startswith("  ")]
    assert lines == [f"{missing}: cannot be read: No such file or directory"]
