"""The command ``setup``: the call of pip, and a failure of it. (`make setup` uses it: tests/test_install.py.)"""

import subprocess
import sys

from lens_d2.commands import main, setup


def test_the_wheel_is_pinned_by_hash_and_goes_into_this_environment(repo_root):
    command = setup.pip_command()
    assert command[0] == sys.executable
    for option in ("--no-deps", "--only-binary=:all:", "--require-hashes", "--target"):
        assert option in command
    assert command[command.index("--python-version") + 1] == "3.10"
    assert setup.REQUIREMENT.read_text() == (repo_root / "requirements-detectron2.txt").read_text()


def test_a_failure_of_pip_is_a_line(monkeypatch, capsys):
    monkeypatch.setattr(setup, "pip_command", lambda: [sys.executable, "-c", "raise SystemExit(3)"])
    assert main(["setup"]) == 2
    assert capsys.readouterr().err.startswith("Detectron2: pip ended with exit code 3")
    monkeypatch.setattr(setup, "pip_command", lambda: [sys.executable, "-c", ""])
    assert main(["setup"]) == 0


def test_without_detectron2_a_command_says_what_to_run(repo_root):
    code = "import sys; sys.modules['detectron2'] = None; from lens_d2.commands import main; "
    code += "sys.exit(main(['zoo']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=repo_root, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("Detectron2: not installed: run `lens-d2 setup`")
