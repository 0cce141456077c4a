"""The published numbers: README and `results/` agree, and reach what was aimed at."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from kscout.bench.tables import summary
from kscout.sweep.spec import load_sweep

ROOT = Path(__file__).parent.parent
BENCHMARKS = json.loads((ROOT / "results" / "benchmarks.json").read_text())


def table_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


def test_the_readme_shows_the_tables_of_results() -> None:
    readme = (ROOT / "README.md").read_text()
    shown = readme.split("<!-- results:begin -->")[1].split("<!-- results:end -->")[0]
    kept = [
        line
        for name in ("demo.md", "digits.md")
        for line in table_lines((ROOT / "results" / name).read_text())
    ]
    assert table_lines(shown) == kept
    assert len(kept) > 20


def test_the_readme_shows_the_table_of_the_suites() -> None:
    readme = (ROOT / "README.md").read_text()
    shown = readme.split("<!-- suites:begin -->")[1].split("<!-- suites:end -->")[0]
    kept = summary(sorted((ROOT / "results" / "bench").glob("*.json")))
    assert table_lines(shown) == table_lines(kept)
    assert len(table_lines(shown)) > 2


def test_every_result_names_its_command() -> None:
    for entry in BENCHMARKS.values():
        assert entry["command"].startswith(("python benchmarks/", "kscout "))
    for name in ("demo.md", "digits.md"):
        assert "    kscout train configs/" in (ROOT / "results" / name).read_text()


@pytest.mark.parametrize(
    ("benchmark", "key", "low", "high"),
    [
        ("closed_form", "nmse_test", 0, 4e-5),
        ("closed_form", "seconds", 0, 120),
        ("spirit_step", "ratio", 5, float("inf")),
        ("spirit_step", "max_rel_error", 0, 1e-4),
        ("digits", "nmse_kspace", 0, 0.078),
        ("digits", "psnr", 21.2, float("inf")),
        ("tile_search", "seconds_search", 0, 600),
        ("sweep_overhead", "seconds_overhead_per_run", 0, 0.3),
        ("classical", "ratio", 1, float("inf")),
        ("volume", "seconds", 0, 120),
        ("volume", "peak_bytes", 0, 1e9),
    ],
)
def test_the_kept_results_reach_the_aims(benchmark: str, key: str, low: float, high: float) -> None:
    assert low <= BENCHMARKS[benchmark]["result"][key] <= high


def test_a_sweep_survived_what_happened_to_it() -> None:
    result = BENCHMARKS["sweep_survival"]["result"]
    assert sum(result["killed"]["kills"].values()) == 20
    for part in (result["killed"], result["bad_disk"]):
        assert part["table_identical"]
        assert part["exit_code"] == 0
    assert result["killed"]["finished_runs_redone"] == 0
    assert result["bad_disk"]["finished_runs_lost"] == 0
    for ended in (result["bad_disk"]["full"], result["bad_disk"]["read_only"]):
        assert (ended["exit_code"], ended["n_lines"]) == (2, 1)


def test_every_run_of_the_small_grids_is_kept() -> None:
    for name, n_runs in (("learned_small", 96), ("fixed_small", 144)):
        with (ROOT / "results" / "sweeps" / f"{name}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["state"] for row in rows] == ["finished"] * n_runs
        planned = load_sweep(ROOT / "configs" / "sweeps" / f"{name}.yaml").plan()
        assert [row["run"] for row in rows] == [run.id for run in planned]


CLASSICAL = BENCHMARKS["classical"]["result"]["nrmse"]


@pytest.mark.parametrize("scan", CLASSICAL)
def test_spirit_is_at_or_below_bart(scan: str) -> None:
    found = {name: entry["nrmse"] for name, entry in CLASSICAL[scan].items()}
    assert found["spirit"] <= min(found["bart_l2"], found["bart_l2_2_maps"])
    assert found["l1_spirit"] <= min(found["bart_l1"], found["bart_l1_2_maps"])
    assert found["tv_spirit"] <= min(found["bart_tv"], found["bart_tv_2_maps"])


def test_the_table_of_classical_methods_is_that_of_the_benchmark() -> None:
    text = (ROOT / "docs" / "classical.md").read_text().split("## Beside BART")[1]
    shown = [line.split("|")[2:-1] for line in table_lines(text)[2 : 2 + len(CLASSICAL_ROWS)]]
    kept = [[f"{CLASSICAL[s][row]['nrmse']:.4f}" for s in CLASSICAL] for row in CLASSICAL_ROWS]
    assert [[cell.strip() for cell in line] for line in shown] == kept


CLASSICAL_ROWS = (
    *("zero_filled", "spirit", "spirit_pocs", "l1_spirit", "tv_spirit", "sense", "sense_2_maps"),
    *("l1_sense", "l1_sense_2_maps", "grappa", "bart_l2", "bart_l2_2_maps", "bart_l1"),
    *("bart_l1_2_maps", "bart_tv", "bart_tv_2_maps"),
)


@pytest.mark.parametrize("scan", CLASSICAL)
def test_no_best_is_where_its_grid_ends(scan: str) -> None:
    assert set(CLASSICAL[scan]) == set(CLASSICAL_ROWS)
    for name, entry in CLASSICAL[scan].items():
        if name != "zero_filled":
            tried = list(entry["tried"])
            assert entry["at"] in tried[1:-1], name
        if name.startswith("bart"):
            thresholds = [float(threshold) for threshold in entry["thresholds"]]
            assert entry["threshold"] in (0, *thresholds[1:-1]), name


def test_the_tables_of_how_masks_are_learned_are_those_of_the_benchmark() -> None:
    text = (ROOT / "docs" / "learning.md").read_text().split("## What helps")[1]
    beds = BENCHMARKS["samplers"]["result"]
    brain, digits = (beds[name]["variants"] for name in ("brain 20 dB R=8", "digits R=4"))
    from_density = BENCHMARKS["samplers_from_density"]["result"]["brain 20 dB R=8"]["variants"]

    def cell(rows: dict[str, Any], name: str) -> str:
        return f"{rows[name]['nmse_db_mean']:.2f} ({rows[name]['nmse_db_sd']:.2f})"

    rows = [
        [f"`{init}`", *(cell(bed, f"{init}, {how}") for bed in (brain, digits) for how in HOW)]
        for init in ("flat", "density", "variable_density", "spread_density", "caipirinha")
    ]
    rows += [
        [title, cell(brain, name), cell(from_density, name.replace("variable_density", "density"))]
        for title, name in CHANGES.items()
    ]
    rows += [
        [title, cell(brain, name), f"{brain[name]['cpu_seconds']:.1f}"]
        for title, name in EXCHANGES.items()
    ]
    shown = [[c.strip() for c in line.split("|")[1:-1]] for line in table_lines(text)]
    assert [row for row in shown if row[0] and "---" not in row[0]] == rows


HOW = ("frozen", "learned")
CHANGES = {
    "none": "variable_density, learned",
    "no noise": "no noise",
    "noise 0.3": "noise 0.3",
    "noise 0.1, not annealed": "noise not annealed",
    "rate 0.03": "rate 0.03",
    "rate 0.3": "rate 0.3",
}
EXCHANGES = {
    "learned from `variable_density`, as above": "variable_density, learned",
    "exchanges by the measured error from `variable_density`": "exchange from variable_density",
    "learned, then exchanges by the measured error": "learned, then exchange",
    "relaxed, rounded, exchanges by the expected error": "design, expected",
    "relaxed, rounded, exchanges by the measured error": "design, measured",
}


def test_no_damaged_file_breaks_a_reader() -> None:
    total = BENCHMARKS["fuzz_readers"]["result"]["total"]
    assert set(total) <= {"read", "refused", "wrong", "memory_mb"}
    assert total["read"] + total["refused"] == BENCHMARKS["fuzz_readers"]["result"]["files"] >= 4000
