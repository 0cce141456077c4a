import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from slurm.cluster import FOLDER, SCRIPT, Cluster

# exit codes of cluster.sh that say "not on this machine" and not "broken"
NOT_OURS, NO_PACKAGES = 3, 4
DAEMONS = {"slurmctld", "slurmscriptd", "slurmd", "slurmstepd", "slurmdbd", "munged", "mariadbd"}


def run_script(verb: str) -> None:
    """Run cluster.sh; skips where there can be no cluster, fails where there could be one."""
    done = subprocess.run(["bash", SCRIPT, verb], capture_output=True, text=True)
    if done.returncode in (NOT_OURS, NO_PACKAGES):
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr


def our_daemons() -> list[str]:
    """Names of the daemons that were started with the cluster's configuration."""
    names = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            name = (process / "comm").read_text().strip()
            ours = os.fsencode(FOLDER) in (process / "environ").read_bytes()
            names += [name] if name in DAEMONS and ours else []
    return names


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A real SLURM of two nodes, started for this session and stopped after it."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a SLURM for the tests can only be started on Linux, and as root")
    with (
        FOLDER.with_suffix(".lock").open("w") as lock,
        pytest.MonkeyPatch.context() as patch,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)  # there is one cluster: other sessions wait for theirs
        run_script("down")
        try:
            run_script("up")
            patch.setenv("SLURM_CONF", str(FOLDER / "slurm.conf"))
            assert {"slurmctld", "slurmdbd", "munged", "mariadbd"} <= set(our_daemons())
            yield Cluster(tmp_path_factory.mktemp("slurm"))
        finally:
            run_script("down")
            assert our_daemons() == []


@pytest.fixture(autouse=True)
def no_jobs_left(slurm: Cluster) -> Iterator[None]:
    """Each test finds both nodes up, and nothing running."""
    yield
    slurm.up("n1")
    slurm.up("n2")
    slurm.cancel_all()


@pytest.fixture
def without_accounting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Make sacct say what it says on a cluster that keeps no accounts."""
    sacct = tmp_path / "bin" / "sacct"
    sacct.parent.mkdir()
    sacct.write_text("#!/bin/sh\necho 'Slurm accounting storage is disabled' >&2\nexit 1\n")
    sacct.chmod(0o755)
    monkeypatch.setenv("PATH", str(sacct.parent), prepend=os.pathsep)
