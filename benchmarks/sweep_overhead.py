"""What a run of a sweep costs beyond its training.

    python benchmarks/sweep_overhead.py

Runs 40 small trainings with one worker, and compares the wall time with what the trainings took
themselves (the sum of their epochs). What is left, less the start (imports and data, told apart by
a sweep of one run), is divided by the number of runs: configuration, checkpoints, the test of every
slice, results, states, and handing out. Prints one JSON object.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

N_RUNS = 40
BASE = {
    "name": "digits",
    "data": {"kind": "digits", "n_train": 1000, "n_val": 100, "n_test": 100},
    "budget": {"acceleration": 4},
    "sampler": {"kind": "global", "init": "density"},
    "reconstructor": {"kind": "spirit_net", "n_blocks": 3, "kernel_size": 5},
    "training": {"epochs": 2, "batch_size": 50},
}
KSCOUT = (sys.executable, "-c", "from kscout.cli import main; main()")


def timed_sweep(folder: Path, n_runs: int) -> dict[str, float]:
    """Wall seconds of a sweep, and those of its epochs."""
    config = folder / f"{n_runs}.yaml"
    config.write_text(yaml.safe_dump({"name": "overhead", "base": BASE, "seeds": n_runs}))
    out = folder / f"sweep-{n_runs}"
    words = ["sweep", "run", config, "--out", out, "--at-once", 1]
    start = time.monotonic()
    subprocess.run(
        [*KSCOUT, *map(str, words)], check=True, stdout=subprocess.DEVNULL, env={**os.environ}
    )
    wall = time.monotonic() - start
    logs = [csv.DictReader(path.open()) for path in out.glob("runs/*/metrics.csv")]
    assert len(logs) == n_runs
    return {"wall": wall, "epochs": sum(float(row["seconds"]) for log in logs for row in log)}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        one, many = (timed_sweep(Path(folder), n) for n in (1, N_RUNS))
    start = one["wall"] - one["epochs"]
    beyond = many["wall"] - many["epochs"]
    result: dict[str, Any] = {
        "n_runs": N_RUNS,
        "seconds_overhead_per_run": (beyond - start) / (N_RUNS - 1),
        "seconds_start": start,
        "seconds_training_per_run": many["epochs"] / N_RUNS,
        "seconds_wall": many["wall"],
        "n_threads": len(os.sched_getaffinity(0)),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
