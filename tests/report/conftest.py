"""Run folders for every test of the report, and figures small enough for tests."""

from pathlib import Path

import pytest

from kscout.report import canvas
from run_folders import write_run


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of few dots: drawing them takes most of the time of these tests."""
    monkeypatch.setattr(canvas, "RESOLUTION", 30)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A learned run compared with two fixed masks and another learned one."""
    root = write_run(tmp_path / "tile", "learned tile", 1e-4, learned=True)
    write_run(root / "compare/points", "random <points>", 9e-3)
    write_run(root / "compare/caipi", "caipirinha", 3e-4)
    write_run(root / "compare/global", "learned global", 2e-4, learned=True)
    return root
