"""What is tried again, and how."""

from typing import Any

import pytest

from commands import TINY
from kscout.sweep import causes
from kscout.sweep.folder import Attempt
from kscout.sweep.launch import Launch
from kscout.sweep.retry import Left, next_attempt
from kscout.sweep.slurm import QUEUED, RUNNING
from kscout.sweep.spec import PlannedRun, Sweep
from kscout.sweep.status import FAILED, FINISHED, WAITING, RunStatus

SWEEP = Sweep.model_validate({"name": "s", "base": TINY, "seeds": [0]})
(RUN,) = SWEEP.plan()
assert RUN.experiment.training.batch_size == 16


def after(cause: str, run: PlannedRun = RUN, epochs: int = 1, **last: Any) -> RunStatus:
    attempt = Attempt(number=3, where="local", **last)
    return RunStatus(run, FAILED, cause, "", epochs, (attempt,))


def test_a_new_run_gets_what_was_asked_for() -> None:
    launch = Launch(on="slurm", memory_mb=2000, minutes=90)
    assert next_attempt(RunStatus(RUN, WAITING), launch) == Attempt(
        number=1, where="slurm", memory_mb=2000, minutes=90
    )


@pytest.mark.parametrize("state", [FINISHED, RUNNING, QUEUED])
def test_what_is_done_or_at_work_is_left(state: str) -> None:
    assert next_attempt(RunStatus(RUN, state), Launch()) == Left(state)


@pytest.mark.parametrize("cause", causes.INTERRUPTIONS)
def test_an_interrupted_run_goes_on_as_it_was(cause: str) -> None:
    following = next_attempt(after(cause, memory_mb=500, micro_batch=4), Launch(memory_mb=100))
    assert isinstance(following, Attempt)
    assert (following.number, following.memory_mb, following.micro_batch) == (4, 500, 4)
    assert following.epochs == 1


def test_out_of_memory_gets_more_up_to_the_cap_then_smaller_parts() -> None:
    launch, steps = Launch(memory_mb=300, max_memory_mb=1000), []
    last = {"memory_mb": 300, "micro_batch": None}
    while isinstance(
        following := next_attempt(after(causes.OUT_OF_MEMORY, **last), launch), Attempt
    ):
        last = {"memory_mb": following.memory_mb, "micro_batch": following.micro_batch}
        steps.append(tuple(last.values()))
    assert steps == [(600, None), (1000, None), (1000, 8), (1000, 4), (1000, 2), (1000, 1)]
    assert "as few slices at a time" in following.reason


def test_without_a_limit_and_on_a_gpu_parts_get_smaller_at_once() -> None:
    for cause, last in (
        (causes.OUT_OF_MEMORY, {}),
        (causes.OUT_OF_GPU_MEMORY, {"memory_mb": 300}),
    ):
        following = next_attempt(after(cause, **last), Launch())
        assert isinstance(following, Attempt)
        assert following.micro_batch == 8
        assert following.memory_mb == last.get("memory_mb")


def test_parts_are_of_what_one_process_has() -> None:
    experiment = RUN.experiment.model_copy(
        update={"trainer": RUN.experiment.trainer.model_copy(update={"n_devices": 4})}
    )
    run = PlannedRun(RUN.id, experiment, {})
    following = next_attempt(after(causes.OUT_OF_GPU_MEMORY, run), Launch())
    assert isinstance(following, Attempt)
    assert following.micro_batch == 2  # of the 4 slices that each of 4 processes has of 16


def test_more_given_by_hand_is_tried_first() -> None:
    status = after(causes.OUT_OF_MEMORY, memory_mb=300, micro_batch=8)
    following = next_attempt(status, Launch(memory_mb=900))
    assert isinstance(following, Attempt)
    assert (following.memory_mb, following.micro_batch) == (900, 8)


def test_an_error_is_not_repeated_unless_wanted() -> None:
    assert isinstance(next_attempt(after(causes.ERROR), Launch()), Left)
    assert isinstance(next_attempt(after(causes.ERROR), Launch(errors_too=True)), Attempt)
    assert isinstance(next_attempt(after(causes.PRUNED), Launch(errors_too=True)), Left)


def test_a_time_limit_in_which_nothing_fits_is_told() -> None:
    tried = Attempt(number=1, where="slurm", minutes=10, epochs=2)
    stuck = RunStatus(RUN, FAILED, causes.TIME_LIMIT, "", 2, (tried,))
    assert isinstance(next_attempt(stuck, Launch(minutes=10)), Left)
    assert isinstance(next_attempt(stuck, Launch(minutes=20)), Attempt)
    moved = after(causes.TIME_LIMIT, epochs=2, minutes=10)
    assert isinstance(next_attempt(moved, Launch(minutes=10)), Attempt)
