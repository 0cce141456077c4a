"""A whole suite: what it finds, and that it finds the same whatever happens to it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from copy import deepcopy
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from bench.conftest import COMMAND, Done, strict
from bench.suites import TINY, one_core, suite, write
from commands import kscout
from kscout.bench import explanations, tables
from kscout.bench.folder import BenchFolder
from kscout.bench.run import run_suite
from kscout.bench.swapped import digest, swapped
from kscout.data.digits import digits
from kscout.errors import UserError
from kscout.experiment.config import options_of
from kscout.recon import RECONSTRUCTORS
from kscout.sweep.launch import Launch

NEAR_DB = 3.0
"""That the better of two masks is to the bound, of digits at R = 4."""


def without_times(path: Path) -> Any:
    found = strict(path)
    del found["seconds"]
    return found


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
    by_slice = test.pivot_table(index=["seed", "volume"], columns="method", values="nmse")
    paired = 10 * np.log10(by_slice["variable density"] / by_slice["learned"])
    difference = compared["methods"]["learned"]["difference"]
    assert difference["mean"] == pytest.approx(paired.mean())
    by_seed = paired.groupby("seed").mean()[[3, 0, 7]]
    assert difference["by_seed"] == pytest.approx(by_seed.tolist())
    assert "difference" not in compared["methods"]["variable density"]
    assert compared["methods"]["learned"]["others"] == {}


def test_the_trial_that_is_tested_is_that_of_the_lowest_validation_error(
    done: Done, found: Any, records: pd.DataFrame
) -> None:
    for method, tried in found["tuning"]["stack"].items():
        assert len(tried["validation"]) == 2
        assert tried["chosen"] == int(np.argmin(tried["validation"]))
        own = records[(records["method"] == method) & (records["seed"] == 3)]
        assert set(own["trial"]) == {tried["chosen"] + 1}
        val = np.log10(own[own["split"] == "val"]["nmse"]).mean()
        assert 10**val == pytest.approx(min(tried["validation"]))
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


def test_where_all_masks_have_one_network_nothing_is_swapped(done: Done, found: Any) -> None:
    run, test = done.folder.tuning_runs(suite())[0], digits(n_train=16, n_val=6, n_test=9)["test"]
    runs = [run, replace(run, method="other", reconstruction="stack")]
    assert swapped(done.folder, runs, test, "nmse", Console(quiet=True)) == {}
    alone = {**found, "swapped": {"n_slices": 9, "mean": {}}}
    assert explanations.swapped(alone) == {"stack": (None, explanations.SAME_NETWORK)}
    assert f"### stack\n\nNote: {explanations.SAME_NETWORK}." in tables.markdown(alone)


def test_a_swapped_cell_is_of_one_mask_and_one_network(done: Done) -> None:
    one, other = done.folder.tuning_runs(suite())[:2]
    assert digest(one)[0] != digest(other)[0]
    assert digest(one)[1] != digest(other)[1]
    without_weights = one.experiment.model_copy(
        update={"reconstructor": options_of(RECONSTRUCTORS["zero_filled"], "zero_filled")()}
    )
    assert digest(one)[1] != digest(replace(one, experiment=without_weights))[1]


def test_the_tables_and_the_page_say_what_the_results_say(done: Done, found: Any) -> None:
    markdown = done.results.with_suffix(".md").read_text()
    page = done.results.with_suffix(".html").read_text()
    row = found["results"]["stack"]["test"]["methods"]["learned"]
    verdict = row["verdict"]
    cell = tables.decibels(row["difference"])
    seeds = [f"{value:+.2f}" for value in sorted(row["difference"]["by_seed"])]
    for text in (markdown, page):
        assert f"learned is {verdict} " in text
        assert cell.text in text
        assert cell.interval in text
        assert f" seeds ({seeds[0]} to {seeds[-1]})" in text
        assert "| by seed |" in text or ">by seed</th>" in text
        assert "chosen at the end of its grid" in text
        assert found["question"] in text
        assert COMMAND in text
        assert all(finding["check"] in text for finding in found["audit"])
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("data:image/png;base64,") == 4  # differences, images, masks and why


def test_the_work_of_every_method_is_told(done: Done, found: Any) -> None:
    for method in TINY["masks"]:
        assert found["work"]["stack"][method]["gradient_steps"] == [2, 2, 2]
    chosen = {("stack", "learned"): found["tuning"]["stack"]["learned"]["chosen"]}
    runs = done.folder.tested_runs(suite(), chosen)
    seconds = [run.folder.results()["seconds"] for run in runs]
    assert found["seconds"]["stack"]["learned"] == np.median(seconds)
    found = deepcopy(found)
    work = found["work"]["stack"]["learned"]
    work |= {"gradient_steps": [0, 0, 0], "search": {"slices": 16, "trials": 60}}
    found["seconds"]["stack"] = {"learned": 123.4, "variable density": 12.34}
    rows = {row[0].text: row[1] for row in explanations.work(found).rows}
    assert rows["learned"][:2] == ("search of 16 slices, 60 trials", "123 s")
    assert rows["variable density"][:2] == ("2 gradient steps", "12.3 s")
    work |= {"gradient_steps": [1, 3, 2], "search": None, "closed_form": True}
    assert explanations.work(found).rows[1][1].text == "1 to 3 gradient steps, closed form"


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


def test_it_grows_by_a_reconstructor_with_a_bound_and_a_staged_method(
    done: Done, tmp_path: Path
) -> None:
    folder = BenchFolder(tmp_path / "bench")
    shutil.copytree(done.folder.path, folder.path)
    gaussian = {"reconstructor": {"kind": "gaussian_sense", "acs_size": 5}}
    staged = [{"kind": "staged"}, {"kind": "staged", "n_stages": 2}]
    grown = suite(
        reconstructors=TINY["reconstructors"] | {"Gaussian SENSE": gaussian},
        masks=TINY["masks"] | {"staged": staged},
    )
    with one_core():
        ended = run_suite(grown, folder, tmp_path, Launch(at_once=1), COMMAND, Console(quiet=True))
    assert ended.results is not None
    found = strict(ended.results)
    stack = found["results"]["stack"]["test"]["methods"]
    assert stack.pop("staged")["learned"]
    assert stack == strict(done.results)["results"]["stack"]["test"]["methods"]
    assert list(found["swapped"]["mean"]) == ["stack"]
    assert set(found["swapped"]["mean"]["stack"]) == set(TINY["masks"])  # no one mask of staged
    draws = found["certificate"]["Gaussian SENSE"]["test"]
    assert list(found["certificate"]) == ["Gaussian SENSE"]
    assert set(draws) == set(TINY["masks"])
    gaps = {m: np.subtract(draws[m]["error_db"], draws[m]["bound_db"]) for m in draws}
    assert all((gap > 0).all() for gap in gaps.values())
    assert min(gap.mean() for gap in gaps.values()) < NEAR_DB
    unbounded, bounded = tables.sections(found)
    n_shared = len(unbounded.grid.headings)
    extra = [heading.title for heading in bounded.grid.headings[n_shared:]]
    assert extra == ["expected NMSE", "dB to bound"]
    rows = {row[0].text: [cell.text for cell in row[n_shared:]] for row in bounded.grid.rows}
    assert rows["staged"] == ["-", "-"]
    assert bounded.notes[-1].startswith("dB to bound is told without staged: every slice has")
    row = next(row for row in tables.in_short(found).rows if row[-1].text != "-")
    for text in (ended.results.with_suffix(suffix).read_text() for suffix in (".md", ".html")):
        for gap in gaps.values():
            assert f"± {gap.std(ddof=1):.2f}" in text
        gap = gaps["variable density"]
        assert row[-1].text.startswith(f"{gap.mean():.2f} ± {gap.std(ddof=1):.2f}, ")
        assert explanations.SAME_NETWORK in text
        assert "without staged: every slice has a mask of its own" in text
        assert explanations.WORK in text


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
    again = ended.results.with_suffix(".md").read_text()
    assert again.split("## Work")[0] == kept.split("## Work")[0]
    said = printed.getvalue()
    for damaged in (one / "records.csv", other, cells[0], ended.results):
        aside = damaged.with_name(f"{damaged.name}.damaged")
        assert aside.exists()
        assert f"{damaged} is damaged: kept as {aside.name}, and worked out again" in said
    assert (folder.path / "records.csv").read_bytes() == (
        done.folder.path / "records.csv"
    ).read_bytes()
