"""A whole suite: what it finds, and that it finds the same whatever happens to it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from bench.conftest import COMMAND, Done
from bench.suites import TINY, one_core, suite, write
from commands import kscout, refused
from kscout.bench import tables
from kscout.bench.folder import BenchFolder
from kscout.bench.run import run_suite
from kscout.bench.swapped import digest
from kscout.errors import UserError
from kscout.experiment.config import options_of
from kscout.recon import RECONSTRUCTORS
from kscout.sweep.launch import Launch


def strict(path: Path) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def without_times(path: Path) -> Any:
    found = strict(path)
    del found["seconds"]
    return found


@pytest.fixture(scope="module")
def found(done: Done) -> Any:
    return strict(done.results)


@pytest.fixture(scope="module")
def records(done: Done) -> pd.DataFrame:
    return pd.read_csv(done.folder.path / "records.csv")


def test_the_numbers_are_those_of_the_records(found: Any, records: pd.DataFrame) -> None:
    compared = found["results"]["stack"]["test"]
    assert (compared["n_slices"], compared["n_volumes"]) == (9, 9)
    assert compared["best_fixed"] == "variable density"
    assert len(records) == 2 * 3 * (9 + 6)
    test = records[records["split"] == "test"]
    for method, row in compared["methods"].items():
        own = test[test["method"] == method]
        assert row["means"]["nmse"]["mean"] == pytest.approx(own["nmse"].mean())
        spread = own.groupby("seed")["nmse"].mean().std()
        assert row["means"]["nmse"]["seed_std"] == pytest.approx(spread)
    by_slice = test.pivot_table(index="volume", columns="method", values="nmse", aggfunc="mean")
    paired = 10 * np.log10(by_slice["variable density"] / by_slice["learned"])
    difference = compared["methods"]["learned"]["difference_db"]
    assert difference["mean"] == pytest.approx(paired.mean())
    assert len(difference["by_seed"]) == 3
    assert "difference_db" not in compared["methods"]["variable density"]


def test_the_trial_that_is_tested_is_that_of_the_lowest_validation_error(
    done: Done, found: Any, records: pd.DataFrame
) -> None:
    for method, tried in found["tuning"]["stack"].items():
        assert len(tried["validation"]) == 2
        assert tried["chosen"] == int(np.argmin(tried["validation"]))
        own = records[(records["method"] == method) & (records["seed"] == 3)]
        assert set(own["trial"]) == {tried["chosen"] + 1}
        val = own[own["split"] == "val"]["nmse"].mean()
        assert val == pytest.approx(min(tried["validation"]))
    n_runs = [
        len(list((sweep.path / "runs").iterdir()))
        for sweep in (done.folder.tuning, done.folder.final)
    ]
    assert n_runs == [4, 4]  # the first seed is not run twice


def test_the_own_network_of_a_mask_scores_as_in_the_records(
    found: Any, records: pd.DataFrame
) -> None:
    swapped = found["swapped"]["mean"]["stack"]
    first = records[(records["seed"] == 3) & (records["split"] == "test")]
    assert found["swapped"]["n_slices"] == 9
    for method in TINY["masks"]:
        own = first[first["method"] == method]["nmse"].mean()
        assert swapped[method][method] == pytest.approx(own, rel=1e-3)
    learned, other = swapped["learned"]["learned"], swapped["learned"]["variable density"]
    assert other != pytest.approx(learned, rel=1e-6)


def test_a_swapped_cell_is_of_one_mask_and_one_network(done: Done) -> None:
    one, other = done.folder.tuning_runs(suite())[:2]
    assert digest(one)[0] != digest(other)[0]
    assert digest(one)[1] != digest(other)[1]
    without_weights = one.experiment.model_copy(
        update={"reconstructor": options_of(RECONSTRUCTORS["zero_filled"], "zero_filled")()}
    )
    assert digest(one)[1] != digest(replace(one, experiment=without_weights))[1]


def test_the_certificate_bounds_every_mask(found: Any) -> None:
    for gap in found["certificate"]["stack"].values():
        assert gap["gap_db"] > -1e-6
        assert gap["gap_db"] == pytest.approx(gap["error_db"] - gap["bound_db"])


def test_the_tables_and_the_page_say_what_the_results_say(done: Done, found: Any) -> None:
    markdown = done.results.with_suffix(".md").read_text()
    page = done.results.with_suffix(".html").read_text()
    row = found["results"]["stack"]["test"]["methods"]["learned"]
    verdict = row["verdict"]
    cell = tables.decibels(row["difference_db"])
    for text in (markdown, page):
        assert f"learned is {verdict} " in text
        assert cell.text in text
        assert cell.interval in text
        assert found["question"] in text
        assert COMMAND in text
        assert all(finding["check"] in text for finding in found["audit"])
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("data:image/png;base64,") == 4  # differences, images, masks and why


def test_the_summary_is_one_row_for_each_reconstructor(done: Done, found: Any, capsys: Any) -> None:
    ended = kscout(capsys, "bench", "table", done.results, done.results)
    lines = ended.out.strip().splitlines()
    assert len(lines) == 4
    assert lines[2] == lines[3]
    difference = found["results"]["stack"]["test"]["methods"]["learned"]["difference_db"]
    assert f"| {difference['mean']:+.2f} [" in lines[2]
    assert lines[2].startswith("| tiny suite | stack | test | variable density | learned |")


def test_a_damaged_result_is_told_what_to_do(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "x.json").write_text('{"suite": "x"')
    assert "run its suite again" in refused(capsys, "bench", "table", tmp_path / "x.json")
    assert "cannot be read" in refused(capsys, "bench", "table", tmp_path / "y.json")


def test_a_check_counts_the_runs(tmp_path: Path, capsys: Any) -> None:
    ended = kscout(capsys, "bench", "check", write(tmp_path), "seeds=5")
    assert ended.code == 0
    assert "12 runs: 4 at the first seed, 8 of chosen trials" in ended.out


def test_another_suite_is_refused_and_told_what_changed(done: Done, tmp_path: Path) -> None:
    other = suite(training={"epochs": 2, "batch_size": 8})
    with pytest.raises(UserError, match=r"another suite \(training changed\).*--out .*bench-2"):
        done.folder.claim(other)
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UserError, match="is not empty and holds no suite"):
        BenchFolder(tmp_path).claim(suite())


def finished(folder: Path) -> list[Path]:
    runs = BenchFolder(folder / "bench").tuning_runs(suite())
    return [run.folder.path for run in runs if run.folder.state == "finished"]


def start_and_kill(folder: Path) -> None:
    """Start the suite as its own process, and kill it once two runs have finished."""
    code = "from kscout.cli import main; main()"
    words = ["bench", "run", write(folder), "--out", folder / "bench", "--at-once", "1"]
    words += ["--results", folder / "results"]
    command = [sys.executable, "-c", code, *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        deadline = time.monotonic() + 600
        while len(finished(folder)) < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    assert not list((folder / "results").iterdir())


def test_killed_and_damaged_it_ends_in_the_same_results(done: Done, tmp_path: Path) -> None:
    with one_core():
        start_and_kill(tmp_path)
    folder, results = BenchFolder(tmp_path / "bench"), tmp_path / "results"
    one, other = finished(tmp_path)[:2]
    (one / "records.csv").write_bytes(b"split,volume\n\x00garbage")
    (other / "config.yaml").write_text("[")
    shutil.copytree(done.folder.path / "swapped", folder.path / "swapped")
    cells = sorted((folder.path / "swapped").iterdir())
    cells[0].write_text("{")
    (results / done.results.name).write_text("not JSON")
    printed = StringIO()
    console = Console(file=printed, width=1000)
    with one_core():
        ended = run_suite(suite(), folder, results, Launch(at_once=1), COMMAND, console)
    assert ended.results is not None
    assert without_times(ended.results) == without_times(done.results)
    kept = done.results.with_suffix(".md").read_text()
    assert ended.results.with_suffix(".md").read_text() == kept
    said = printed.getvalue()
    for damaged in (one / "records.csv", other, cells[0], ended.results):
        aside = damaged.with_name(f"{damaged.name}.damaged")
        assert aside.exists()
        assert f"{damaged} is damaged: kept as {aside.name}, and worked out again" in said
    assert (folder.path / "records.csv").read_bytes() == (
        done.folder.path / "records.csv"
    ).read_bytes()
