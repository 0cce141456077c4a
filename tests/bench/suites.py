"""A suite small enough for tests, on real digits."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import yaml

from kscout.bench.suite import Suite

TINY: dict[str, Any] = {
    "name": "tiny suite",
    "question": "does a learned mask beat a random one?",
    "data": {"kind": "digits", "n_train": 16, "n_val": 6, "n_test": 9},
    "budget": {"n_samples": 197, "acs": "square", "acs_size": 5},
    "seeds": [3, 0, 7],
    "masks": {
        "variable density": [
            {"kind": "variable_density", "power": 1},
            {"kind": "variable_density", "power": 4},
        ],
        "learned": [
            {"kind": "global", "init": "density"},
            {"kind": "global", "init": "density", "noise": 0.4},
        ],
    },
    "reconstructors": {
        "stack": {"reconstructor": {"kind": "spirit_net", "n_blocks": 1, "kernel_size": 3}}
    },
    "training": {"epochs": 1, "batch_size": 8, "mask_learning_rate": 0.05},
}


def changed(**changes: Any) -> dict[str, Any]:
    return deepcopy(TINY) | changes


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(changed(**changes), sort_keys=False), encoding="utf-8")
    return path


def suite(**changes: Any) -> Suite:
    return Suite.model_validate(changed(**changes))


@contextmanager
def one_core() -> Iterator[None]:
    """Runs, and this process, compute in one thread then: two get in each other's way."""
    cores, n_threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, {random.choice(sorted(cores))})
    torch.set_num_threads(1)
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(n_threads)
