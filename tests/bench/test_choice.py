"""Which trial is tested, and what is said where it is the last of its grid."""

from pathlib import Path
from typing import Any

import pytest

from bench.suites import TINY, suite
from kscout.bench.choice import choose, ends_of_grids, validation_error
from kscout.bench.folder import BenchFolder, BenchRun
from kscout.errors import UserError


def test_the_trial_is_chosen_in_db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As everything is judged: of two trials not that of the lower mean error."""
    errors = {0: [4.0, 4.0, 4.0], 1: [1.0, 1.0, 10.1]}

    def records(run: BenchRun) -> list[dict[str, Any]]:
        test = {"split": "test", "nmse": 1e-9 if run.trial == 0 else 1.0}  # has no say
        return [test, *({"split": "val", "nmse": error} for error in errors[run.trial])]

    monkeypatch.setattr(BenchRun, "records", records)
    tried = BenchFolder(tmp_path).tuning_runs(suite())
    validation = {run.folder.path: validation_error(suite(), run) for run in tried}
    assert choose(tried, validation) == {("stack", "variable density"): 1, ("stack", "learned"): 1}
    assert validation[tried[1].folder.path] == pytest.approx(10.1 ** (1 / 3))
    monkeypatch.setattr(BenchRun, "records", lambda run: records(run)[:1])
    with pytest.raises(UserError, match="has no validation scores"):
        validation_error(suite(), tried[0])


def powers(*values: float) -> list[dict[str, Any]]:
    return [{"kind": "variable_density", "power": value} for value in values]


def slopes(*values: float) -> list[dict[str, Any]]:
    return [{"kind": "poisson_disc", "slope": value} for value in values]


@pytest.mark.parametrize(
    ("trials", "chosen", "said"),
    [
        (powers(4, 1.5, 2.5), 1, "power 1.5 of 1.5, 2.5, 4"),
        (powers(4, 1.5, 2.5), 0, "power 4 of 1.5, 2.5, 4"),
        (powers(4, 1.5, 2.5), 2, None),
        (slopes(0, 1, 3), 0, None),  # it cannot be less
        (slopes(0, 1, 3), 2, "slope 3 of 0, 1, 3"),
        ([{"kind": "variable_density"}, *powers(4)], 1, "power 4 of 3, 4"),  # 3 is the default
        ([*powers(1, 4), *slopes(2)], 1, None),
        ([*powers(1), powers(2)[0] | {"lines": True}], 1, None),
        (powers(2), 0, None),
    ],
)
def test_the_end_of_a_grid_is_told(
    trials: list[dict[str, Any]], chosen: int, said: str | None
) -> None:
    own = suite(masks=TINY["masks"] | {"variable density": trials})
    found = ends_of_grids(own, {("stack", "variable density"): chosen})
    if said is None:
        assert found == []
    else:
        ((check, told),) = found
        assert check == "chosen at the end of its grid"
        assert told == f"variable density ({said}) with stack: a wider grid may do better"


def test_reconstructors_that_chose_the_same_are_told_together() -> None:
    chosen = {("one", "learned"): 1, ("two", "learned"): 1, ("two", "variable density"): 0}
    ((_, told),) = ends_of_grids(suite(), chosen)
    assert told == (
        "learned (noise 0.4 of 0.1, 0.4) with one and two; variable density (power 1 of 1, 4) with "
        "two: a wider grid may do better"
    )
