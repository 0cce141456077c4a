"""What SLURM says of jobs, as seen on a real one (22.05), and what it means.

The commands are small scripts that print it; tests/slurm/test_sweeps.py asks a real cluster.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from kscout.errors import UserError
from kscout.sweep import causes, slurm
from kscout.sweep.folder import Attempt, SweepFolder

SQUEUE = """\
4_0 FAILED
4_1 RUNNING
4_2 PENDING
4_4 PENDING
21 PENDING
22 COMPLETING
23 PREEMPTED
"""
SACCT = """\
4_0|FAILED
4_0.batch|FAILED
4_0.0|OUT_OF_MEMORY
12|CANCELLED by 0
12.batch|CANCELLED
12.0|CANCELLED
21|PREEMPTED
21.batch|CANCELLED
30|NODE_FAIL
30.batch|CANCELLED
30.0|CANCELLED
31|TIMEOUT
31.batch|CANCELLED
31.0|CANCELLED+
32|COMPLETED
32.batch|COMPLETED
33|RUNNING
"""
Say = Callable[[str, str, int], None]


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Say:
    """Have a command print something and exit with a code."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setattr(slurm, "PAUSE", 0)

    def say(command: str, text: str, code: int = 0) -> None:
        where = "" if code == 0 else " >&2"
        (programs / f"{command}.txt").write_text(text)
        script = f"#!/bin/sh\ncat {programs}/{command}.txt{where}\nexit {code}\n"
        (programs / command).write_text(script)
        (programs / command).chmod(0o755)

    return say


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    (tmp_path / "slurm").mkdir()
    return SweepFolder(tmp_path)


def states(folder: SweepFolder, *jobs: str) -> dict[str, str]:
    return slurm.job_states(folder, [Attempt(number=1, where="slurm", job=job) for job in jobs])


def test_tasks_of_an_array(folder: SweepFolder, say: Say) -> None:
    say("squeue", SQUEUE, 0)
    say("sacct", SACCT, 0)
    assert states(folder, *(f"4_{i}" for i in range(5))) == {
        "4_0": causes.OUT_OF_MEMORY,  # of a step; the job's own line calls it failed
        "4_1": slurm.RUNNING,
        "4_2": slurm.QUEUED,
        "4_3": causes.KILLED,  # cancelled while it waited: leaves no trace
        "4_4": slurm.QUEUED,
    }


def test_the_controller_knows_better_than_the_accounts(folder: SweepFolder, say: Say) -> None:
    say("squeue", SQUEUE, 0)
    say("sacct", SACCT, 0)
    assert states(folder, "21", "22", "23", "33") == {
        "21": slurm.QUEUED,  # requeued, and still preempted for the accounts
        "22": slurm.RUNNING,
        "23": causes.PREEMPTED,
        "33": slurm.RUNNING,  # forgotten by the controller, not yet by the accounts
    }


def test_jobs_that_are_over(folder: SweepFolder, say: Say) -> None:
    say("squeue", "", 0)
    say("sacct", SACCT, 0)
    assert states(folder, "12", "30", "31", "32", "99") == {
        "12": causes.CANCELLED,
        "30": causes.NODE_FAILURE,
        "31": causes.TIME_LIMIT,
        "32": causes.KILLED,  # completed, and yet without a word of how it ended
        "99": causes.KILLED,
    }


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("slurmstepd-n1: error: Detected 1 oom-kill event(s) in StepId=19.0.", "out of memory"),
        ("srun: error: n1: task 0: Out Of Memory", "out of memory"),
        ("error: Step 4.0 exceeded memory limit (400 > 100), being killed", "out of memory"),
        ("error: *** JOB 8 ON n2 CANCELLED AT 2026 DUE TO NODE FAILURE", "node failure"),
        ("error: *** JOB 8 ON n2 CANCELLED AT 2026 DUE TO PREEMPTION ***", "preempted"),
        ("error: *** JOB 8 ON n2 CANCELLED AT 2026 DUE TO TIME LIMIT ***", "time limit"),
        ("error: *** JOB 8 ON n2 CANCELLED AT 2026 ***", "cancelled"),
    ],
)
def test_without_accounts_the_log_tells(
    folder: SweepFolder, say: Say, line: str, cause: str
) -> None:
    say("squeue", SQUEUE, 0)
    say("sacct", "Slurm accounting storage is disabled", 1)
    (folder.slurm / "4_0_0_log.err").write_text(f"some warning\n{line}\n")
    assert states(folder, "4_0") == {"4_0": cause}


@pytest.mark.parametrize("command", ["squeue", "scancel"])
def test_silence_of_slurm_kills_no_job(folder: SweepFolder, say: Say, command: str) -> None:
    say("squeue", SQUEUE, 0)
    say(command, "slurm_load_jobs error: Socket timed out on send/recv operation", 1)
    with pytest.raises(UserError, match=r"does not answer \(.*Socket timed out"):
        states(folder, "4_1") if command == "squeue" else slurm.cancel_jobs(["4_1"])


def test_without_slurm_nothing_is_said_of_its_jobs(
    folder: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(folder.path))
    with pytest.raises(UserError, match="SLURM cannot be asked: squeue"):
        states(folder, "1")


def test_an_array_is_found_by_its_name(say: Say) -> None:
    say("squeue", "17_0 RUNNING\n17_1 PENDING\n", 0)
    say("sacct", "", 0)
    assert slurm.find_jobs("kscout-1") == "17"
    say("squeue", "", 0)
    assert slurm.find_jobs("kscout-1") is None
    say("sacct", "18\n", 0)
    assert slurm.find_jobs("kscout-1") == "18"
