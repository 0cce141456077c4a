"""What to do about a run that is not finished: the next try, or a reason to leave it."""

from dataclasses import dataclass

from kscout.sweep import causes
from kscout.sweep.folder import Attempt
from kscout.sweep.launch import Launch
from kscout.sweep.slurm import AT_WORK
from kscout.sweep.status import FAILED, FINISHED, RunStatus


@dataclass(frozen=True)
class Left:
    """A run that is not tried again, and why."""

    reason: str


def next_attempt(status: RunStatus, launch: Launch) -> Attempt | Left:
    """The next try of a run.

    A run out of memory gets twice as much, up to ``max_mem``; then half as many slices at a time,
    which changes its result by rounding only. An interrupted one goes on from its checkpoint. An
    error would come again, so it is left until ``errors_too``.
    """
    if status.state in (FINISHED, *AT_WORK):
        return Left(status.state)
    fresh = Attempt(
        number=status.attempts[-1].number + 1 if status.attempts else 1,
        where=launch.on,
        memory_mb=launch.memory_mb,
        minutes=launch.minutes,
        micro_batch=status.planned.experiment.trainer.micro_batch,
        epochs=status.epochs,
    )
    if not status.attempts:
        return fresh
    last = status.attempts[-1]
    memory = max(filter(None, (last.memory_mb, launch.memory_mb)), default=None)
    again = fresh.model_copy(update={"memory_mb": memory, "micro_batch": last.micro_batch})
    if status.state != FAILED:
        return again
    match status.cause:
        case causes.OUT_OF_MEMORY | causes.OUT_OF_GPU_MEMORY:
            return _with_more_room(status, again, launch)
        case causes.TIME_LIMIT if _stands_still(status, again):
            return Left("no epoch fits into the time limit: give more with --time")
        case causes.ERROR if not launch.errors_too:
            return Left("an error would come again: once it is mended, add --errors-too")
        case causes.PRUNED:
            return Left("pruned")
    return again


def _with_more_room(status: RunStatus, again: Attempt, launch: Launch) -> Attempt | Left:
    last = status.attempts[-1]
    if again.memory_mb and (last.memory_mb or 0) < again.memory_mb:
        return again  # more was given by hand
    cap = launch.max_memory_mb or last.memory_mb
    host = status.cause == causes.OUT_OF_MEMORY
    if host and last.memory_mb and cap and last.memory_mb < cap:
        return again.model_copy(update={"memory_mb": min(2 * last.memory_mb, cap)})
    experiment = status.planned.experiment
    trainer, training = experiment.trainer, experiment.training
    share = -(-training.batch_size // (trainer.n_devices * trainer.n_nodes))
    at_a_time = min(again.micro_batch or share, share)
    if not training.epochs or at_a_time == 1:
        return Left("out of memory with as few slices at a time as can be: give more with --mem")
    return again.model_copy(update={"micro_batch": at_a_time // 2})


def _stands_still(status: RunStatus, again: Attempt) -> bool:
    """Whether the last try completed no epoch, and the next gets no more time."""
    last = status.attempts[-1]
    return status.epochs <= last.epochs and (again.minutes or 0) <= (last.minutes or 0)
