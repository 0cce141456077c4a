"""Whether a sweep survives what may happen to it.

    python benchmarks/sweep_survival.py

Runs the same 24 small trainings three times. First left alone. Then killed: 20 times, after a
random while, SIGKILL hits the coordinator, a worker, or all of them at once, and the sweep is
resumed. Then (as root, on a small file system of its own) on a disk that gets full and that is
remounted read-only, each of which must end in one clear line, lose no finished run, and be resumed
when there is room again. All tables must be the same, bit for bit. Prints one JSON object.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

SWEEP = {
    "name": "survival",
    "base": {
        "name": "digits",
        "data": {"kind": "digits", "n_train": 400, "n_val": 50, "n_test": 50},
        "budget": {"acceleration": 4},
        "sampler": {"kind": "global", "init": "density"},
        "reconstructor": {"kind": "spirit_net", "n_blocks": 3, "kernel_size": 5},
        "training": {"epochs": 15, "batch_size": 20},
    },
    "grid": {
        "sampler.kind": ["global", "tile"],
        "budget.acceleration": [4, 8],
        "training.learning_rate": [0.001, 0.003],
    },
    "seeds": 3,
}
N_RUNS = 24
KSCOUT = (sys.executable, "-c", "from kscout.cli import main; main()")
ALONE = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(*words: object) -> list[str]:
    return [*KSCOUT, "sweep", *map(str, words)]


def kscout(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), capture_output=True, text=True, env=ALONE)


def table_of(folder: Path) -> str:
    """Digest of the sweep's table."""
    ended = kscout("table", folder)
    assert ended.returncode == 0, ended.stderr
    return hashlib.sha256((folder / "table.csv").read_bytes()).hexdigest()


def finished(folder: Path) -> dict[str, int]:
    """When each finished run wrote its results."""
    return {
        path.parent.name: path.stat().st_mtime_ns for path in folder.glob("runs/*/results.json")
    }


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def kill_at_random(folder: Path, config: Path, n_kills: int, seed: int) -> dict[str, Any]:
    """Kill and resume a sweep until it has been killed often enough, then let it end."""
    rng, hits = random.Random(seed), {"coordinator": 0, "worker": 0, "all": 0}
    kept: dict[str, int] = {}
    redone = 0
    while sum(hits.values()) < n_kills:
        coordinator = subprocess.Popen(
            command("run", config, "--out", folder),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=ALONE,
        )
        time.sleep(rng.uniform(1, 30))
        workers = children(coordinator.pid)
        what = rng.choice(list(hits)) if workers else "coordinator"
        targets = {
            "coordinator": [coordinator.pid],
            "worker": [rng.choice(workers)] if workers else [],
            "all": [coordinator.pid, *workers],
        }[what]
        for pid in targets:
            os.kill(pid, signal.SIGKILL)
        hits[what] += 1
        if what == "worker":  # the coordinator goes on without it, for a while
            time.sleep(rng.uniform(0.5, 5))
            coordinator.kill()
        coordinator.wait()
        now = finished(folder)
        redone += sum(kept[run] != now.get(run) for run in kept)
        kept = now
        print(f"{sum(hits.values())} kills, {len(kept)} finished", file=sys.stderr)
        if len(kept) == N_RUNS:
            raise SystemExit("the sweep ended before it had been killed often enough")
    ended = kscout("resume", folder)
    now = finished(folder)
    redone += sum(kept[run] != now.get(run) for run in kept)
    return {"kills": hits, "exit_code": ended.returncode, "finished_runs_redone": redone}


@contextmanager
def small_disk(size: str) -> Iterator[Path]:
    """A file system of its own in memory."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def on_a_bad_disk(config: Path) -> dict[str, Any]:
    """Fill the disk, then forbid writing, then make room."""
    with small_disk("1m") as disk:
        folder = disk / "sweep"
        full = kscout("run", config, "--out", folder)
        before = finished(folder)
        remount(disk, "size=100m,ro")
        read_only = kscout("resume", folder)
        remount(disk, "rw")
        ended = kscout("resume", folder)
        now = finished(folder)
        return {
            "full": told(full),
            "read_only": told(read_only),
            "finished_before": len(before),
            "finished_runs_lost": sum(before[run] != now.get(run) for run in before),
            "exit_code": ended.returncode,
            "table": table_of(folder),
        }


def told(ended: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Exit code, and what was said: one line and no traceback, it should be."""
    lines = ended.stderr.strip().splitlines()
    return {
        "exit_code": ended.returncode,
        "n_lines": len(lines),
        "line": lines[-1] if lines else "",
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        config = work / "sweep.yaml"
        config.write_text(yaml.safe_dump(SWEEP))
        alone = kscout("run", config, "--out", work / "alone")
        assert alone.returncode == 0, alone.stderr
        seconds_alone = time.monotonic() - start
        wanted = table_of(work / "alone")
        killed = kill_at_random(work / "killed", config, options.kills, options.seed)
        killed["table_identical"] = table_of(work / "killed") == wanted
        disk: dict[str, Any] = {"skipped": "a disk can only be made as root"}
        if os.geteuid() == 0:
            disk = on_a_bad_disk(config)
            disk["table_identical"] = disk.pop("table") == wanted
    result = {
        "n_runs": N_RUNS,
        "seconds_alone": seconds_alone,
        "killed": killed,
        "bad_disk": disk,
        "seconds": time.monotonic() - start,
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
