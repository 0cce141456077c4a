import os
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from commands import TINY, write_config
from kscout.experiment import load_experiment, run_experiment


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path / "tiny.yaml")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the tiny experiment with one mask to compare with; only to be read."""
    folder = tmp_path_factory.mktemp("finished")
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY | {"compare": {"lattice": {"kind": "caipirinha"}}}))
    run_experiment(load_experiment(path), folder / "run", Console(quiet=True))
    return folder / "run"


@pytest.fixture(scope="session")
def real_kspace() -> Path:
    """Folder of fully sampled scans."""
    folder = os.environ.get("KSCOUT_TEST_DATA")
    if not folder:
        pytest.skip("real scans are found through KSCOUT_TEST_DATA, which is not set")
    return Path(folder) / "kspace"
