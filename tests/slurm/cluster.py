"""What the tests do with the two-node SLURM that cluster.sh starts."""

import subprocess
import time
from collections.abc import Collection
from pathlib import Path

SCRIPT = Path(__file__).with_name("cluster.sh")
FOLDER = Path("/tmp/kscout-slurm")  # HOME_DIR of the script


def command(*arguments: str) -> str:
    """Standard output of one of SLURM's commands."""
    return subprocess.run(arguments, check=True, capture_output=True, text=True).stdout


class Cluster:
    """The running cluster: nodes n1 and n2; partitions main, urgent (preempts main) and closed.

    Parameters
    ----------
    logs
        Folder for the output of the jobs that `submit` submits.
    """

    def __init__(self, logs: Path) -> None:
        self.logs = logs

    @property
    def has_memory_cgroups(self) -> bool:
        """Whether sacct says OUT_OF_MEMORY; without cgroups only the log of a job does."""
        return "task/cgroup" in command("scontrol", "show", "config")

    def submit(self, script: str, *options: str) -> str:
        """Submit shell commands with options of sbatch; returns the job's id."""
        output = f"--output={self.logs / '%j.log'}"
        return command("sbatch", "--parsable", output, *options, "--wrap", script).strip()

    def log(self, job_id: str) -> str:
        """Output of a job (not of an array) that `submit` submitted."""
        path = self.logs / f"{job_id}.log"
        return path.read_text() if path.exists() else ""

    def states(self, *job_ids: str) -> dict[str, str]:
        """State of these (or all) jobs and array tasks ("12", "13_0") from the controller.

        The controller knows at once what happens, unlike the accounting.
        """
        lines = command("squeue", "--noheader", "--array", "--states=all", "--format=%i %T")
        states = dict(line.split() for line in lines.splitlines())
        if not job_ids:
            return states
        return {i: s for i, s in states.items() if i in job_ids or i.split("_")[0] in job_ids}

    def wait(self, job_ids: Collection[str], states: Collection[str], seconds: float = 30) -> None:
        """Wait until every one of the jobs is in one of the states; AssertionError if it is not."""
        end = time.monotonic() + seconds
        while not (now := self.states(*job_ids)) or not set(now.values()) <= set(states):
            assert time.monotonic() < end, f"after {seconds} s: {now}, and not all {states}"
            time.sleep(0.1)

    def sacct(self, job_id: str, seconds: float = 20) -> dict[str, str]:
        """State of a job and of its steps ("12", "12.batch", "12.0"), from the accounting.

        The accounting lags: waits until it says of the job what the controller says.
        """
        end = time.monotonic() + seconds
        while True:
            rows = command("sacct", "-nP", "-j", job_id, "--format=JobID,State").splitlines()
            # "CANCELLED by 0" -> "CANCELLED"
            states = {i: s.split()[0] for i, s in (row.split("|") for row in rows)}
            live = self.states(job_id)
            if live.items() <= states.items():
                return states
            assert time.monotonic() < end, f"after {seconds} s sacct says {states}, squeue {live}"
            time.sleep(0.2)

    def down(self, node: str) -> None:
        """Take a node down, as if it had died, with all that runs on it."""
        command("scontrol", "update", f"nodename={node}", "state=down", "reason=test")

    def up(self, node: str) -> None:
        """Bring a node back; nothing to do if it is not down."""
        if command("sinfo", "-h", "-N", "-n", node, "-p", "main", "-o", "%T").startswith("down"):
            command("scontrol", "update", f"nodename={node}", "state=resume")

    def preempt(self, seconds: float) -> str:
        """Take both nodes for some seconds from all jobs in main; returns once it has them."""
        options = ("--partition=urgent", "--nodes=2", "--exclusive")
        job_id = self.submit(f"sleep {seconds}", *options)
        self.wait([job_id], ["RUNNING", "COMPLETED"])
        return job_id

    def cancel_all(self) -> None:
        """Cancel all jobs and wait until they have ended."""
        command("scancel", "--user=root")
        end = time.monotonic() + 20
        while left := command("squeue", "--noheader", "--format=%i %T"):
            assert time.monotonic() < end, f"these jobs do not end: {left}"
            time.sleep(0.1)
