import json
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
from rich.console import Console

from bench.suites import one_core, suite
from kscout.bench.folder import BenchFolder
from kscout.bench.run import run_suite
from kscout.sweep.launch import Launch

COMMAND = "kscout bench run tiny.yaml"


class Done(NamedTuple):
    """A suite that has been run: its folder, and the JSON of its results."""

    folder: BenchFolder
    results: Path


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """The tiny suite, run to its end; only to be read."""
    path = tmp_path_factory.mktemp("suites")
    folder = BenchFolder(path / "bench")
    launch, quiet = Launch(at_once=1), Console(quiet=True)
    with one_core():
        ended = run_suite(suite(), folder, path / "results", launch, COMMAND, quiet)
    assert ended.results is not None
    return Done(folder, ended.results)


def strict(path: Path) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


@pytest.fixture(scope="module")
def found(done: Done) -> Any:
    return strict(done.results)


@pytest.fixture(scope="module")
def records(done: Done) -> pd.DataFrame:
    return pd.read_csv(done.folder.path / "records.csv")
