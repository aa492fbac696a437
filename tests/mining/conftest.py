"""Tools as modules."""

import importlib.util
import sys

import pytest


@pytest.fixture
def tool(repo_root, monkeypatch):
    def load(name):
        spec = importlib.util.spec_from_file_location(f"tool_{name}", repo_root / "tools" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return load
