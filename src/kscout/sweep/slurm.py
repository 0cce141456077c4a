"""SLURM through submitit: job arrays in, states out.

submitit's own view of a job misses the difference between causes, so states are read here: from the
controller, which knows first what is over; then, for why, from ``sacct`` over all steps of the job,
from what the controller still remembers, and from the job's log.
"""

import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import redirect_stderr
from io import StringIO
from itertools import groupby
from typing import Any

from kscout.errors import StorageError, UserError
from kscout.sweep import causes
from kscout.sweep.folder import Attempt, SweepFolder
from kscout.sweep.launch import Launch
from kscout.sweep.local import Task
from kscout.sweep.work import RequeuedJob, job

QUEUED, RUNNING = "queued", "running"
AT_WORK = (QUEUED, RUNNING)

MEANINGS = {
    "RUNNING": RUNNING,
    "COMPLETING": RUNNING,
    "SUSPENDED": RUNNING,
    "STOPPED": RUNNING,
    "SIGNALING": RUNNING,
    "STAGE_OUT": RUNNING,
    "RESIZING": RUNNING,
    "PENDING": QUEUED,
    "CONFIGURING": QUEUED,
    "REQUEUED": QUEUED,
    "REQUEUE_HOLD": QUEUED,
    "REQUEUE_FED": QUEUED,
    "OUT_OF_MEMORY": causes.OUT_OF_MEMORY,
    "NODE_FAIL": causes.NODE_FAILURE,
    "BOOT_FAIL": causes.NODE_FAILURE,
    "PREEMPTED": causes.PREEMPTED,
    "TIMEOUT": causes.TIME_LIMIT,
    "DEADLINE": causes.TIME_LIMIT,
    "CANCELLED": causes.CANCELLED,
    "FAILED": causes.ERROR,
    "COMPLETED": causes.KILLED,
}
"""What SLURM's states of a job and of its steps mean; of several, the first in this list counts."""

IN_LOG = {
    "oom-kill event": "OUT_OF_MEMORY",
    "Out Of Memory": "OUT_OF_MEMORY",
    "exceeded memory limit": "OUT_OF_MEMORY",
    "Exceeded job memory limit": "OUT_OF_MEMORY",
    "DUE TO NODE FAILURE": "NODE_FAIL",
    "DUE TO PREEMPTION": "PREEMPTED",
    "DUE TO TIME LIMIT": "TIMEOUT",
    "CANCELLED AT": "CANCELLED",
}
"""What SLURM writes into a job's log, and the state that it stands for."""

MINUTES = 60
"""Time limit where none is given; a run that needs more is requeued and goes on."""

AT_ONCE = 8
"""Jobs at a time where each is chosen by what earlier ones found."""

POLL = 15.0
"""Seconds between questions to SLURM."""

TRIES, PAUSE = 3, 5.0
"""Questions before SLURM counts as not answering, and seconds between them."""

MOST_REQUEUES = 1000
MOST_IN_ARRAY = 1000
"""SLURM's default for ``MaxArraySize`` allows numbers up to 1000."""


def submit(
    folder: SweepFolder, tasks: Sequence[Task], launch: Launch, at_work: Collection[str] = ()
) -> None:
    """Hand tasks to SLURM as job arrays, one for each amount of memory.

    Parameters
    ----------
    at_work : ids of arrays of this sweep that have not ended

    Raises
    ------
    UserError
        if there is no SLURM here, or it refuses, or the folder cannot be written
    """
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise UserError("there is no SLURM here (sbatch is not found): valid is --on local")
    before = list(at_work)
    for _, alike in groupby(sorted(tasks, key=_memory), key=_memory):
        group = list(alike)
        for first in range(0, len(group), MOST_IN_ARRAY):
            part = group[first : first + MOST_IN_ARRAY]
            # A throttle holds within an array only, so throttled arrays wait for one another.
            before = [_submit_array(folder, part, launch, before if launch.at_once else [])]


def _memory(task: Task) -> int:
    return task[1].memory_mb or 0


def _submit_array(
    folder: SweepFolder, tasks: Sequence[Task], launch: Launch, after: Sequence[str]
) -> str:
    """Returns the id of the array.

    Each attempt is written down twice: with the name of its array before there is one, by which
    :func:`find_jobs` finds it should this process be killed in between; then with its job.
    """
    import submitit

    name = f"kscout-{uuid.uuid4().hex[:12]}"
    executor = submitit.SlurmExecutor(folder.slurm, max_num_timeout=MOST_REQUEUES)
    executor.update_parameters(**_parameters(tasks, launch), job_name=name)
    if after:
        executor.update_parameters(dependency=f"afterany:{':'.join(after)}")
    ids = [tree["name"] for tree, _ in tasks]
    attempts = [
        attempt.model_copy(update={"array": name, "place": place if len(tasks) > 1 else None})
        for place, (_, attempt) in enumerate(tasks)
    ]
    for run_id, attempt in zip(ids, attempts, strict=True):
        folder.add_attempt(run_id, attempt)
    work = job if "no-requeue" in launch.slurm else RequeuedJob(launch.minutes or MINUTES)
    paths = [folder.path.resolve()] * len(tasks)
    try:
        with redirect_stderr(StringIO()):  # submitit prints what the error says again
            jobs = executor.map_array(
                work, paths, [tree for tree, _ in tasks], [a.model_dump() for a in attempts]
            )
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
        for run_id, attempt in zip(ids, attempts, strict=True):
            folder.forget_attempt(run_id, attempt.number)
        raise UserError(f"SLURM does not take the runs: {_reason(str(error))}") from error
    except OSError as error:
        raise StorageError(f"cannot write {folder.slurm}: {error.strerror}") from error
    for run_id, attempt, submitted in zip(ids, attempts, jobs, strict=True):
        folder.add_attempt(run_id, attempt.model_copy(update={"job": submitted.job_id}))
    return str(jobs[0].job_id).split("_")[0]


def _parameters(tasks: Sequence[Task], launch: Launch) -> dict[str, Any]:
    tree, attempt = tasks[0]
    minutes = int(attempt.minutes or MINUTES)
    requeue = {} if "no-requeue" in launch.slurm else {"requeue": True}
    given = {
        "partition": launch.partition,
        "account": launch.account,
        "time": minutes,
        "signal_delay_s": min(90, 15 * minutes),
        "mem": f"{attempt.memory_mb}M" if attempt.memory_mb else None,
        "nodes": tree["trainer"]["n_nodes"],
        "ntasks_per_node": tree["trainer"]["n_devices"],
        "cpus_per_task": launch.cpus,
        "gpus_per_node": launch.gpus,
        "array_parallelism": launch.at_once or len(tasks),
        "srun_args": ["--kill-on-bad-exit=1"],  # one process of several must not wait for the dead
        "additional_parameters": requeue | launch.slurm,
    }
    return {name: value for name, value in given.items() if value is not None}


def _reason(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["no reason given"])[-1].removeprefix("sbatch: error: ")


def run_watched(
    folder: SweepFolder,
    tasks: Iterable[Task],
    launch: Launch,
    at_work: Collection[str],
    look: Callable[[Sequence[str]], object],
) -> None:
    """Hand tasks to SLURM one by one, as those before them end.

    Parameters
    ----------
    at_work : ids of the runs that have not ended, kept by who gives the tasks
    look : called now and then with them; has to take out what has ended
    """
    queue = iter(tasks)
    while True:
        while len(at_work) < (launch.at_once or AT_ONCE) and (task := next(queue, None)):
            submit(folder, [task], launch)
        if not at_work:
            return
        time.sleep(POLL)
        look(list(at_work))


def cancel_jobs(jobs: Sequence[str]) -> None:
    """Take jobs back from SLURM, at work or not; ``UserError`` if it does not answer."""
    _answer("scancel", "--quiet", *jobs)


def job_states(folder: SweepFolder, attempts: Sequence[Attempt]) -> dict[str, str]:
    """Whether jobs are queued or running, else the cause of their end, by job id.

    The controller decides what is over, because the accounts lag behind: they call a job that has
    just been requeued preempted. A job that nobody knows any more was killed.

    Raises
    ------
    UserError
        if SLURM does not answer: nobody may then say that a job is dead
    """
    jobs = [attempt.job for attempt in attempts if attempt.job]
    live = _controller("--me")
    states = {
        name: MEANINGS[live[name]] for name in jobs if MEANINGS.get(live.get(name, "")) in AT_WORK
    }
    over = [name for name in jobs if name not in states]
    steps = _accounts(over) if over else {}
    for name in over:
        # A job whose srun step ran out of memory has merely failed, by its own line.
        found = {*steps.get(name, []), live.get(name, ""), *_from_log(folder, name)}
        telling = (meaning for state, meaning in MEANINGS.items() if state in found)
        states[name] = next(telling, causes.KILLED)
    return states


def find_jobs(name: str) -> str | None:
    """The id of the array, or single job, with this unique name; ``None`` if there is none."""
    found = list(_controller("--me", f"--name={name}"))
    found += _said("sacct", "-nPX", "-S", "now-7days", "-o", "JobID", f"--name={name}").split()
    return found[0].split("_")[0] if found else None


def _controller(*which: str) -> dict[str, str]:
    """States of jobs that SLURM has not forgotten yet, tasks of arrays one by one."""
    shown = _answer("squeue", "-h", "--array", "--states=all", "--format=%i %T", *which)
    return dict(line.split() for line in shown.splitlines() if len(line.split()) == 2)


def _accounts(jobs: Sequence[str]) -> dict[str, list[str]]:
    """States of all steps, by job; nothing on a cluster that keeps no accounts."""
    arrays = sorted({name.split("_")[0] for name in jobs})
    found: dict[str, list[str]] = {}
    for line in _said("sacct", "-nP", "-o", "JobID,State", "-j", ",".join(arrays)).splitlines():
        step, _, state = line.partition("|")
        found.setdefault(step.split(".")[0], []).append(state.split()[0] if state else "")
    return found


def _from_log(folder: SweepFolder, name: str) -> list[str]:
    try:
        text = (folder.slurm / f"{name}_0_log.err").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [state for words, state in IN_LOG.items() if words in text]


def _said(*command: str) -> str:
    """What a command of SLURM prints; nothing where it fails, or is not there."""
    try:
        return _run(command).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _answer(*command: str) -> str:
    """The same, from a command whose silence would mean something."""
    why = ""
    for left in reversed(range(TRIES)):
        try:
            return _run(command).stdout
        except OSError as error:
            raise UserError(f"SLURM cannot be asked: {command[0]}: {error.strerror}") from error
        except subprocess.SubprocessError as error:
            why = _reason(str(getattr(error, "stderr", None) or error))
            time.sleep(PAUSE if left else 0)
    raise UserError(f"SLURM does not answer ({command[0]}: {why}): try again later")


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
