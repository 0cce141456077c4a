"""The cluster itself: that it does to jobs what the tests of the sweeps count on."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from slurm.cluster import FOLDER, SCRIPT, Cluster

EAT_400_MB = f'{sys.executable} -c "import time; x = bytearray(400 << 20); time.sleep(3)"'


def test_array_keeps_to_its_throttle(slurm: Cluster) -> None:
    job_id = slurm.submit("sleep 1", "--array=0-4%2")
    running = []
    end = time.monotonic() + 40
    while set((states := slurm.states(job_id)).values()) != {"COMPLETED"}:
        assert time.monotonic() < end, states
        running.append(Counter(states.values())["RUNNING"])
        time.sleep(0.1)
    assert max(running) == 2
    assert set(states) == {f"{job_id}_{task}" for task in range(5)}


def test_job_over_its_memory_is_out_of_memory(slurm: Cluster) -> None:
    batch = slurm.submit(f"{EAT_400_MB}; exit $?", "--mem=100")
    step = slurm.submit(f"srun {EAT_400_MB}", "--mem=100")
    slurm.wait([batch, step], ["OUT_OF_MEMORY", "FAILED"])
    if not slurm.has_memory_cgroups:
        assert "exceeded memory limit" in slurm.log(batch)
        assert "exceeded memory limit" in slurm.log(step)
        return
    assert slurm.sacct(batch)[batch] == "OUT_OF_MEMORY"
    # a step's cause is not its job's
    states = slurm.sacct(step)
    assert (states[step], states[f"{step}.0"]) == ("FAILED", "OUT_OF_MEMORY")
    assert "oom-kill" in slurm.log(step)


def test_preempted_job_runs_again_unless_it_may_not(slurm: Cluster) -> None:
    script = 'echo "start ${SLURM_RESTART_COUNT:-0}"; [ -n "$SLURM_RESTART_COUNT" ] || sleep 60'
    again = slurm.submit(script, "--requeue", "--open-mode=append")
    once = slurm.submit(script, "--no-requeue")
    slurm.wait([again, once], ["RUNNING"])
    slurm.preempt(1)
    assert slurm.states(once) == {once: "PREEMPTED"}
    slurm.wait([again], ["COMPLETED"])
    starts = [line for line in slurm.log(again).splitlines() if line.startswith("start")]
    assert starts == ["start 0", "start 1"]
    assert "DUE TO PREEMPTION" in slurm.log(again)
    assert slurm.sacct(once)[once] == "PREEMPTED"
    assert slurm.sacct(again)[again] == "COMPLETED"


def test_jobs_of_a_node_that_dies(slurm: Cluster) -> None:
    again = slurm.submit("sleep 60", "--requeue", "--nodelist=n2")
    once = slurm.submit("sleep 60", "--no-requeue", "--nodelist=n2")
    slurm.wait([again, once], ["RUNNING"])
    slurm.down("n2")
    assert slurm.states(again, once) == {again: "PENDING", once: "NODE_FAIL"}
    assert slurm.sacct(once)[once] == "NODE_FAIL"
    slurm.up("n2")
    slurm.wait([again], ["RUNNING"])


def test_gpu_of_each_node_goes_to_one_job(slurm: Cluster) -> None:
    script = "echo $CUDA_VISIBLE_DEVICES $SLURMD_NODENAME; sleep 1"
    jobs = [slurm.submit(script, "--gres=gpu:1") for _ in range(2)]
    slurm.wait(jobs, ["COMPLETED"])
    assert {slurm.log(job) for job in jobs} == {"0 n1\n", "0 n2\n"}


def test_closed_partition_refuses(slurm: Cluster) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        slurm.submit("true", "--partition=closed")
    assert "Required partition not available" in refused.value.stderr


@pytest.mark.usefixtures("without_accounting")
def test_cluster_without_accounting(slurm: Cluster) -> None:
    job_id = slurm.submit("exit 1")
    slurm.wait([job_id], ["FAILED"])
    with pytest.raises(subprocess.CalledProcessError, match="sacct"):
        slurm.sacct(job_id)


def test_up_keeps_a_cluster_that_stands(slurm: Cluster) -> None:
    job_id = slurm.submit("sleep 60")
    done = subprocess.run(["bash", SCRIPT, "up"], capture_output=True, text=True, check=True)
    assert done.stdout == f"export SLURM_CONF={os.environ['SLURM_CONF']}\n"
    assert slurm.states(job_id)


@pytest.mark.usefixtures("slurm")
def test_another_slurm_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "slurm.conf"
    other.touch()
    environment = os.environ | {"SLURM_CONF": str(other)}
    for verb in ("up", "down", "status"):
        done = subprocess.run(
            ["bash", SCRIPT, verb], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 3
        assert done.stderr == f"cluster.sh: this machine has a SLURM that is not ours: {other}\n"


def test_up_after_a_cluster_that_died(slurm: Cluster) -> None:
    job_id = slurm.submit("echo $$; exec sleep 60", "--nodelist=n1")
    end = time.monotonic() + 20
    while not (pid := slurm.log(job_id).strip()):
        assert time.monotonic() < end, slurm.states(job_id)
        time.sleep(0.1)
    command_line = Path("/proc", pid, "cmdline")
    assert command_line.read_text() != ""
    for daemon in ("slurmctld", "slurmd-n1"):
        os.kill(int((FOLDER / f"{daemon}.pid").read_text()), signal.SIGKILL)

    subprocess.run(["bash", SCRIPT, "up"], capture_output=True, check=True)
    assert slurm.states() == {}
    assert not command_line.exists() or command_line.read_text() == ""  # or not yet reaped
    for log in slurm.logs.iterdir():  # the new cluster counts its jobs from 1 again
        log.unlink()
    job_id = slurm.submit("true", "--nodes=2")
    slurm.wait([job_id], ["COMPLETED"])
