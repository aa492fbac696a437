"""Every command in docs/evaluation.md runs as it stands there."""

import re
import shlex
import subprocess
import sys

import pytest


@pytest.fixture
def commands(repo_root):
    text = (repo_root / "docs/evaluation.md").read_text()
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def test_commands(commands, load_tool, repo_root, tmp_path, monkeypatch):
    """All but those on the released files, which cannot be here; of the benchmark, the names."""
    monkeypatch.chdir(repo_root)
    ran = []
    for command in commands:
        python, script, *words = shlex.split(command)
        tool = load_tool(script.removeprefix("tools/").removesuffix(".py"))
        assert python == "python" and (repo_root / script).is_file()
        if "$" in command:
            assert vars(tool.parse_args(words))
        elif script == "tools/benchmark.py":
            assert set(words[1:]) <= set(tool.MEASUREMENTS)
        else:
            words[words.index("--output-dir") + 1] = str(tmp_path / str(len(ran)))
            assert tool.main(words) == 0
            ran.append(command)
    assert len(ran) == 4 and len(commands) == 6


def test_as_a_user_runs_it(golden, repo_root, tmp_path):
    """In a process of its own: the exit status, one line of error, no traceback."""
    missing = tmp_path / "absent.pkl"
    words = [
        "--protocol",
        "lens3d",
        "--ground-truth",
        missing,
        "--predictions",
        golden / "lens3d/predictions.json",
    ]
    command = [sys.executable, "tools/evaluate.py", *map(str, words), "--output-dir", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=repo_root, capture_output=True, text=True)
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    lines = [line for line in done.stderr.splitlines() if "Warning" not in line and not line.startswith("  ")]
    assert lines == [f"error: {missing}: cannot be read: No such file or directory"]
