"""Inference and mining of more and more volumes: time of a volume and memory stay."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

if __package__:
    from .registry import measurement
else:  # run by itself, once for each number of volumes
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from benchmarks.registry import measurement

VOLUMES = (20, 40, 80)


def run(number: int) -> dict:
    """Propose and mine on so many small volumes; {"volumes", "seconds", "peak_mb"}."""
    import numpy as np
    import torch

    from benchmarks.networks import config, network, write_scan
    from benchmarks.registry import peak_mb
    from lens_d2.mining.lens.mine import mine
    from lens_d2.mining.lens.strategies import CrossSlice
    from lens_d2.mining.proposals import open_shards, propose
    from lens_d2.structures.records import make_lesion, make_record

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        cfg = config("phantom/lens_multi.yaml", "INPUT.CACHE_DIR", f"{folder}/cache", "INPUT.PIXEL_SPACING", 0.8)
        records = []
        for seed in range(number):
            name = write_scan(Path(folder), levels=20, size=96, seed=seed)["file_name"]
            mark = make_lesion(f"scan_{seed}/0", [[10, *np.array([20.0, 20, 44, 44]) + seed % 20]], key_slice=10)
            records.append(
                make_record(
                    name, volume=f"scan_{seed}", expert="deeplesion", patient=f"{seed:06d}",
                    size=(96, 96, 20), spacing=(0.8, 0.8, 2.0), lesions=[mark],
                )
            )  # fmt: skip
        shards = open_shards(cfg, network(cfg), Path(folder) / "proposals")
        start = time.process_time()
        propose(records, shards)
        mine(records, shards, {"CrossSlice": CrossSlice()}, Path(folder) / "mining")
        return {"volumes": number, "seconds": time.process_time() - start, "peak_mb": peak_mb()}


@measurement("scale")
def scale() -> dict:
    """Each number of volumes in a process of its own; ratio: the largest time of a volume over the smallest."""
    runs = []
    for number in VOLUMES:
        command = [sys.executable, __file__, str(number)]
        runs.append(
            json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.splitlines()[-1])
        )
    each = [run["seconds"] / run["volumes"] for run in runs]
    peaks = [run["peak_mb"] for run in runs]
    return {
        "ratio": max(each) / min(each),
        "baseline_seconds": each[0],
        "ours_seconds": each[-1],
        "details": {"runs": runs, "seconds": "processor time a volume", "peak_ratio": max(peaks) / min(peaks)},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("volumes", type=int)
    print(json.dumps(run(parser.parse_args().volumes)))
