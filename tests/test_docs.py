"""What the documentation points to exists: linked files, scripts, configs and make targets."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]


def code_of(text: str) -> str:
    """Everything that is set as code."""
    return "\n".join(re.findall(r"```\w*\n(.*?)```", text, re.DOTALL) + re.findall(r"`([^`\n]+)`", text))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_scripts_and_configs_exist(name):
    text = (ROOT / name).read_text()
    links = [target for target in re.findall(r"\]\(([^)#]+)", text) if "://" not in target]
    files = re.findall(r"(?<![\w./])((?:[\w.-]+/)*[\w-]+\.(?:py|yaml|txt|toml))\b", code_of(text))
    assert [path for path in {*links, *files} if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_make_targets_exist(name):
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"\bmake ([a-z]+)", code_of((ROOT / name).read_text())))
    assert [t for t in targets if not re.search(rf"^{t}:", makefile, re.MULTILINE)] == []


def test_the_two_commands_stand_first_in_the_readme():
    commands = re.search(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1].splitlines()
    assert [line.split("#")[0].strip() for line in commands] == ["make demo", "make test"]


def test_citation_names_both_papers():
    import yaml

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    dois = [reference["doi"] for reference in citation["references"]]
    assert dois == ["10.1109/TMI.2020.3047598", "10.1109/TMI.2020.3022034"]
    version = re.search(r'__version__ = "(.+)"', (ROOT / "lens_d2/__init__.py").read_text())[1]
    assert citation["version"] == version
