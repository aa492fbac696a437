"""Free memory is what control groups leave."""

import pytest

from lens_d2.io import memory
from lens_d2.io.errors import DataError


def test_limits_of_control_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "linux")
    monkeypatch.setattr(memory, "LIMITS", (("memory.max", "memory.current", tmp_path),))
    monkeypatch.setattr(memory, "_groups", lambda root: [root / "inner", root])
    (tmp_path / "inner").mkdir()
    for folder, limit in ((tmp_path, "max"), (tmp_path / "inner", "300000000")):
        (folder / "memory.max").write_text(limit + "\n")
        (folder / "memory.current").write_text("250000000\n")
        (folder / "memory.stat").write_text("anon 1\ninactive_file 20000000\n")
    assert memory.available_memory() == 70_000_000
    with pytest.raises(DataError, match="1,000 voxels need 0.3 GB of memory, 0.1 GB are free"):
        memory.check_memory("ct.nii", 1000)
