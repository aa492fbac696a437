"""Tools as modules."""

import pytest


@pytest.fixture
def tool(load_script):
    return lambda name: load_script(f"tools/{name}.py")
