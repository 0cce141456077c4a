"""SLURM through submitit: job arrays in, states out.

submitit's own view of a job misses the difference between causes, so states are read here: from
``sacct`` over all steps of a job, else from ``scontrol``, else from what is in its log.
"""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr
from io import StringIO
from itertools import groupby
from typing import Any

from kscout.errors import UserError
from kscout.sweep import causes
from kscout.sweep.folder import Attempt, Ended, SweepFolder
from kscout.sweep.launch import Launch
from kscout.sweep.local import Task
from kscout.sweep.work import SlurmTask

MINUTES = 60
"""Time limit where none is given; a run that needs more is requeued and goes on."""

AT_ONCE = 8
"""Jobs at a time where each is chosen by what earlier ones found."""

POLL = 5.0
"""Seconds between questions to SLURM."""

MOST_REQUEUES = 1000
MOST_IN_ARRAY = 1000
"""SLURM's default for ``MaxArraySize`` allows numbers up to 1000."""

RANKED = (
    "OUT_OF_MEMORY",
    "NODE_FAIL",
    "BOOT_FAIL",
    "PREEMPTED",
    "TIMEOUT",
    "DEADLINE",
    "CANCELLED",
    "FAILED",
    "COMPLETED",
)
"""Of the states of a job's steps, the first of these tells why the job ended."""

WAITS = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESIZING")
WORKS = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT")

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


def submit(folder: SweepFolder, tasks: Sequence[Task], launch: Launch) -> None:
    """Hand tasks to SLURM as job arrays, one for each amount of memory.

    Raises
    ------
    UserError
        if there is no SLURM here, or it refuses
    """
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise UserError("there is no SLURM here (sbatch is not found): valid is --on local")
    ordered = sorted(tasks, key=_memory)
    before: str | None = None
    for _, alike in groupby(ordered, key=_memory):
        group = list(alike)
        for first in range(0, len(group), MOST_IN_ARRAY):
            part = group[first : first + MOST_IN_ARRAY]
            # A throttle holds within an array only, so throttled arrays wait for one another.
            before = _submit_array(folder, part, launch, before if launch.at_once else None)


def _memory(task: Task) -> int:
    return task[1].memory_mb or 0


def _submit_array(
    folder: SweepFolder, tasks: Sequence[Task], launch: Launch, after: str | None
) -> str:
    import submitit

    executor = submitit.SlurmExecutor(folder.slurm, max_num_timeout=MOST_REQUEUES)
    executor.update_parameters(**_parameters(tasks, launch, after))
    trees, attempts = zip(*tasks, strict=True)
    paths = [folder.path.resolve()] * len(tasks)
    for tree, attempt in tasks:
        folder.add_attempt(tree["name"], attempt)
    try:
        with redirect_stderr(StringIO()):  # submitit prints what the error says again
            jobs = executor.map_array(SlurmTask(), paths, trees, [a.model_dump() for a in attempts])
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
        for tree, attempt in tasks:
            folder.forget_attempt(tree["name"], attempt.number)
        raise UserError(f"SLURM refuses: {_reason(str(error))}") from error
    for (tree, attempt), job in zip(tasks, jobs, strict=True):
        folder.add_attempt(tree["name"], attempt.model_copy(update={"job": job.job_id}))
    return str(jobs[0].job_id).split("_")[0]


def _parameters(tasks: Sequence[Task], launch: Launch, after: str | None) -> dict[str, Any]:
    tree, attempt = tasks[0]
    requeue = {} if "no-requeue" in launch.slurm else {"requeue": True}
    minutes = attempt.minutes or MINUTES
    given = {
        "job_name": "kscout",
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
        "dependency": f"afterany:{after}" if after else None,
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
    tick: Callable[[Sequence[str]], object],
    done: Callable[[str, Ended], object],
) -> None:
    """Hand tasks to SLURM one by one, as those before them end; see :func:`run_local`."""
    queue = iter(tasks)
    at_work: dict[str, int] = {}
    while True:
        while len(at_work) < (launch.at_once or AT_ONCE) and (task := next(queue, None)):
            submit(folder, [task], launch)
            at_work[task[0]["name"]] = task[1].number
        if not at_work:
            return
        time.sleep(POLL)
        tick(list(at_work))
        for run_id, number in list(at_work.items()):
            ended = _ended(folder, run_id, number)
            if ended is not None:
                del at_work[run_id]
                done(run_id, ended)


def _ended(folder: SweepFolder, run_id: str, number: int) -> Ended | None:
    """How a try ended, by its own word or, if it has none left, by SLURM's."""
    ended = folder.ended(run_id, number)
    if ended is None:
        attempt = folder.attempts(run_id)[-1]
        state = job_states(folder, [attempt]).get(attempt.job or "", "UNKNOWN")
        if state not in ("PENDING", "RUNNING"):
            ended = folder.ended(run_id, number) or Ended(cause=cause_of_state(state))
    return ended


def cause_of_state(state: str) -> str:
    """Why a job that SLURM gives this last state has left no word of its own."""
    return causes.SLURM_CAUSES.get(state, causes.KILLED)


def cancel_jobs(jobs: Sequence[str]) -> None:
    """Take jobs back from SLURM, at work or not."""
    _said("scancel", *jobs)


def job_states(folder: SweepFolder, attempts: Sequence[Attempt]) -> dict[str, str]:
    """Whether jobs are ``PENDING`` or ``RUNNING``, else the SLURM state that tells why they ended.

    ``scontrol`` is asked first, because the accounts lag behind: they call a job that has just been
    requeued preempted. A job that nobody knows, and whose log says nothing, is left out.
    """
    jobs = [attempt.job for attempt in attempts if attempt.job]
    shown = _scontrol(jobs)
    states = {job: state for job in jobs if (state := _at_work(shown.get(job, [])))}
    over = [job for job in jobs if job not in states]
    steps = _sacct(over) if over else {}
    for job in over:
        # A job whose srun step ran out of memory has merely failed, in its own line and scontrol's.
        found = [*steps.get(job, []), *shown.get(job, []), *_from_log(folder, job)]
        if state := next((state for state in RANKED if state in found), ""):
            states[job] = state
    return states


def _at_work(states: Sequence[str]) -> str:
    if any(state in WORKS for state in states):
        return "RUNNING"
    return "PENDING" if any(state in WAITS for state in states) else ""


def _scontrol(jobs: Sequence[str]) -> dict[str, list[str]]:
    """States of jobs that SLURM still remembers; an array that waits stands in one line."""
    found: dict[str, list[str]] = {}
    for array in _arrays(jobs):
        for line in _said("scontrol", "show", "job", "-o", array).splitlines():
            fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
            places = fields.get("ArrayTaskId")
            for job in [array] if places is None else [f"{array}_{i}" for i in _numbers(places)]:
                found.setdefault(job, []).append(fields.get("JobState", ""))
    return found


def _sacct(jobs: Sequence[str]) -> dict[str, list[str]]:
    """States of all steps, by job."""
    said = _said("sacct", "-n", "-P", "-o", "JobID,State", "-j", ",".join(_arrays(jobs)))
    found: dict[str, list[str]] = {}
    for line in said.splitlines():
        step, _, state = line.partition("|")
        found.setdefault(step.split(".")[0], []).append(state.split()[0] if state else "")
    return found


def _arrays(jobs: Sequence[str]) -> list[str]:
    return sorted({job.split("_")[0] for job in jobs})


def _numbers(places: str) -> list[int]:
    """``0,2-4%2``, places of an array with its throttle, as numbers."""
    numbers: list[int] = []
    for part in places.split("%")[0].split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            numbers += range(int(first), int(last.split(":")[0] or first) + 1)
    return numbers


def _from_log(folder: SweepFolder, job: str) -> list[str]:
    try:
        text = (folder.slurm / f"{job}_0_log.err").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [state for words, state in IN_LOG.items() if words in text]


def _said(*command: str) -> str:
    """What a command of SLURM prints; nothing where it fails, or is not there."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
