"""The code in docs/acquisition.md does what is said beside it."""

import re
from pathlib import Path
from typing import Any

import pytest

from kscout.acquisition.learner import fit
from kscout.acquisition.network import UnitNetwork
from kscout.acquisition.rollout import roll_out
from scans import process

DOCUMENT = Path(__file__).parents[2] / "docs" / "acquisition.md"


@pytest.fixture(scope="module")
def defined() -> dict[str, Any]:
    space: dict[str, Any] = {"__name__": "documented"}
    for block in re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.S):
        exec(compile(block, DOCUMENT.name, "exec"), space)
    return space


def test_the_policy_takes_a_neighbour_of_the_brightest(defined: dict[str, Any]) -> None:
    scan = process(budget=1)
    actions = roll_out(scan, defined["BrightestNeighbour"]()).actions
    assert set(actions.flatten().tolist()) <= {3, 5}  # line 4 is all that there is


def test_the_learner_learns(defined: dict[str, Any], tmp_path: Path) -> None:
    scan = process(budget=1)
    learner = defined["FirstGain"](
        scan, UnitNetwork(scan.units, 0), 0, learning_rate=1e-3, reward="gain"
    )
    before = roll_out(scan, learner.policy).area.mean()
    fit(learner, process(seed=5, budget=1), tmp_path, epochs=20, batch_size=16, progress=False)
    assert roll_out(scan, learner.policy).area.mean() < before
