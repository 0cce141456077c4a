"""What counts as damaged in the folder of a suite."""

import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from bench.conftest import Done
from bench.suites import suite
from kscout.bench.folder import BenchFolder, set_damaged_aside
from kscout.errors import UserError

LOSSES: dict[str, Callable[[list[str]], list[str]]] = {
    "header": lambda lines: lines[1:],
    "header and all lines but one": lambda lines: lines[1:2],
    "records": lambda lines: lines[:1],
    "everything": lambda lines: [],
    "end": lambda lines: [*lines[:-1], lines[-1][:30]],
}


@pytest.mark.parametrize("lost", LOSSES)
def test_records_that_lost_something_are_set_aside(done: Done, tmp_path: Path, lost: str) -> None:
    shutil.copytree(done.folder.path / "tuning", tmp_path / "tuning")
    run = BenchFolder(tmp_path).tuning_runs(suite())[0]
    path = run.folder.path / "records.csv"
    path.write_text("\n".join(LOSSES[lost](path.read_text().splitlines())))
    with pytest.raises(UserError, match=r"records\.csv is damaged$"):
        run.records()
    printed = StringIO()
    assert set_damaged_aside([run], Console(file=printed, width=40))
    assert printed.getvalue() == (
        f"{path} is damaged: kept as records.csv.damaged, and worked out again\n"
    )
    assert path.with_name("records.csv.damaged").exists()
    assert run.folder.state == "interrupted"
    assert not set_damaged_aside([run], Console(quiet=True))
