"""What SLURM says of jobs, as seen on a real one (22.05), and what it means."""

from pathlib import Path

import pytest

from kscout.sweep import slurm
from kscout.sweep.folder import Attempt, SweepFolder

SCONTROL = {
    "4": (
        "JobId=4 ArrayJobId=4 ArrayTaskId=2,4-5%2 JobState=PENDING Reason=JobArrayTaskLimit\n"
        "JobId=6 ArrayJobId=4 ArrayTaskId=1 JobName=kscout JobState=RUNNING Reason=None\n"
        "JobId=5 ArrayJobId=4 ArrayTaskId=0 JobState=FAILED Reason=NonZeroExitCode\n"
    ),
    "21": "JobId=21 JobState=PENDING Reason=BeginTime Restarts=1\n",
    "22": "JobId=22 JobState=COMPLETING Reason=None\n",
}
SACCT = {
    "4": "4_0|FAILED\n4_0.batch|FAILED\n4_0.0|OUT_OF_MEMORY\n",
    "12": "12|CANCELLED by 0\n12.batch|CANCELLED\n12.0|CANCELLED\n",
    "21": "21|PREEMPTED\n21.batch|CANCELLED\n",
    "22": "22|RUNNING\n",
    "30": "30|NODE_FAIL\n30.batch|CANCELLED\n30.0|CANCELLED\n",
    "31": "31|TIMEOUT\n31.batch|CANCELLED\n31.0|CANCELLED+\n",
    "32": "32|COMPLETED\n32.batch|COMPLETED\n32.0|COMPLETED\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    (tmp_path / "slurm").mkdir()
    return SweepFolder(tmp_path)


def states(
    folder: SweepFolder, monkeypatch: pytest.MonkeyPatch, *jobs: str, accounts: bool = True
) -> dict[str, str]:
    def said(*command: str) -> str:
        if command[0] == "scontrol":
            return SCONTROL.get(command[-1], "")
        return "".join(SACCT.get(job, "") for job in command[-1].split(",")) if accounts else ""

    monkeypatch.setattr(slurm, "_said", said)
    tries = [Attempt(number=1, where="slurm", job=job) for job in jobs]
    return slurm.job_states(folder, tries)


def test_tasks_of_an_array(folder: SweepFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert states(folder, monkeypatch, *(f"4_{i}" for i in range(7))) == {
        "4_0": "OUT_OF_MEMORY",  # of a step; the job's own line calls it failed
        "4_1": "RUNNING",
        "4_2": "PENDING",
        "4_4": "PENDING",
        "4_5": "PENDING",
    }  # 4_3 and 4_6 have left no trace


def test_the_controller_knows_better_than_the_accounts(
    folder: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert states(folder, monkeypatch, "21", "22") == {"21": "PENDING", "22": "RUNNING"}


def test_jobs_that_are_over(folder: SweepFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert states(folder, monkeypatch, "12", "30", "31", "32", "99") == {
        "12": "CANCELLED",
        "30": "NODE_FAIL",
        "31": "TIMEOUT",
        "32": "COMPLETED",
    }


@pytest.mark.parametrize(
    ("line", "state"),
    [
        ("slurmstepd-n1: error: Detected 1 oom-kill event(s) in StepId=19.0.", "OUT_OF_MEMORY"),
        ("srun: error: n1: task 0: Out Of Memory", "OUT_OF_MEMORY"),
        ("slurmstepd: error: *** JOB 8 ON n2 CANCELLED AT 2026 DUE TO NODE FAILURE", "NODE_FAIL"),
        ("slurmstepd: error: *** JOB 8 ON n2 CANCELLED AT 2026 DUE TO PREEMPTION ***", "PREEMPTED"),
        ("slurmstepd: error: *** JOB 8 ON n2 CANCELLED AT 2026 DUE TO TIME LIMIT ***", "TIMEOUT"),
        ("slurmstepd: error: *** JOB 8 ON n2 CANCELLED AT 2026 ***", "CANCELLED"),
    ],
)
def test_without_accounts_the_log_tells(
    folder: SweepFolder, monkeypatch: pytest.MonkeyPatch, line: str, state: str
) -> None:
    (folder.slurm / "4_0_0_log.err").write_text(f"some warning\n{line}\n")
    assert states(folder, monkeypatch, "4_0", accounts=False) == {"4_0": state}


def test_without_slurm_nothing_is_known(
    folder: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(folder.path))
    assert slurm.job_states(folder, [Attempt(number=1, where="slurm", job="1")]) == {}
