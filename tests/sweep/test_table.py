"""The table of a sweep, on small synthetic run folders."""

import json
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from kscout.errors import UserError
from kscout.sweep.ranking import best_per_group, ranked, settings, short_names
from kscout.sweep.table import SweepRun, counted, frame, print_table, write_table
from run_folders import write_run

KIND, R, SEED = "sampler.kind", "budget.acceleration", "seed"


def planned(
    root: Path, given: Sequence[tuple[dict[str, Any], float | str]], **changes: Any
) -> list[SweepRun]:
    """Runs with settings, finished if an NMSE is given, else in the state given."""
    runs = []
    for i, (chosen, outcome) in enumerate(given):
        run_id = f"{i:010x}"
        path = root / "sweep" / "runs" / run_id
        if isinstance(outcome, float):
            write_run(path, run_id, outcome, **changes)
            runs.append(SweepRun(run_id, path, chosen, "finished"))
        else:
            cause = "out of memory" if outcome == "failed" else None
            runs.append(SweepRun(run_id, path, chosen, outcome, cause))
    return runs


def printed(runs: Sequence[SweepRun], width: int = 140, **options: Any) -> str:
    text = StringIO()
    print_table(frame(runs), Console(file=text, width=width), **options)
    return text.getvalue()


def test_a_row_for_each_run_in_the_order_of_the_plan(tmp_path: Path) -> None:
    runs = planned(
        tmp_path,
        [
            ({KIND: "tile", R: 8}, 3e-3),
            ({KIND: "tile", R: 4}, "failed"),
            ({R: 4, "training.noise": 0.5}, 1e-3),
            ({KIND: "poisson", R: 4}, "waiting"),
        ],
    )
    table = frame(runs)
    assert list(table["run"]) == [run.id for run in runs]
    assert list(table["state"]) == ["finished", "failed", "finished", "waiting"]
    assert settings(table) == [KIND, R, "training.noise"]
    head = ["run", "state", "cause", KIND, R, "training.noise", "n_samples", "acceleration"]
    assert list(table)[:11] == [*head, "nmse_kspace", "nmse_kspace_low", "nmse_kspace_high"]
    assert table["nmse_kspace"].tolist() == pytest.approx([3e-3, np.nan, 1e-3, np.nan], nan_ok=True)
    assert table.loc[2, "nmse_kspace_high"] == pytest.approx(1.1e-3)
    assert table["n_samples"].tolist()[0] == 60
    assert pd.isna(table.loc[1, "n_samples"])
    assert not any("seconds" in name for name in table)


def test_other_test_conditions_follow_with_their_names(tmp_path: Path) -> None:
    runs = planned(tmp_path, [({R: 4}, 1e-3), ({R: 8}, 1e-3)])
    path = runs[1].path / "results.json"
    results = json.loads(path.read_text())
    harder = {**results["summary"]["test"], "nmse": {"mean": 0.5, "low": 0.4, "high": 0.6}}
    results["summary"] = {"test_b": harder, "val": harder, "test_a": harder, **results["summary"]}
    path.write_text(json.dumps(results))
    table = frame(runs)
    names = [name for name in table if name.endswith("nmse")]
    assert names == ["nmse", "test_a.nmse", "test_b.nmse"]
    assert pd.isna(table.loc[0, "test_b.nmse"])
    assert table.loc[1, "test_b.nmse"] == 0.5
    with pytest.raises(UserError, match="'test_c': valid are test, test_a, test_b"):
        printed(runs, split="test_c")
    assert "5.00e-01" in printed(runs, split="test_a", metric="nmse")


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"name": "x"}'])
def test_broken_results_fail_that_run_alone(tmp_path: Path, text: str) -> None:
    runs = planned(tmp_path, [({R: 4}, 1e-3), ({R: 8}, 2e-3)])
    (runs[0].path / "results.json").write_text(text)
    table = frame(runs)
    assert table["state"].tolist() == ["failed", "finished"]
    assert table.loc[0, "cause"] == "unreadable results"
    assert table["nmse"].tolist() == pytest.approx([np.nan, 2e-3], nan_ok=True)


def test_a_run_without_its_folder_fails_that_run_alone(tmp_path: Path) -> None:
    table = frame([SweepRun("a", tmp_path / "gone", {R: 4}, "finished")])
    assert table["cause"].tolist() == ["unreadable results"]


def test_the_files_keep_types_and_hold_mixed_settings(tmp_path: Path) -> None:
    values: list[Any] = [4, "x", None, [4, 4]]
    runs = planned(
        tmp_path,
        [
            (
                {
                    "mixed": value,
                    "list": [i, i],
                    "whole": i or None,
                    "real": i + 0.1 if i else 1,
                    "flag": i > 1,
                    "nothing": None,
                    "large": 10**30 + i,
                },
                1e-3,
            )
            for i, value in enumerate(values)
        ],
    )
    attempts = [
        {"id": "a", "number": 1, "where": "slurm", "cause": None, "seconds": 1.5, "error": ""},
        {"id": "a", "number": 2, "where": "local", "memory_mb": 4000},
    ]
    write_table(frame(runs), attempts, tmp_path / "sweep")
    table = pd.read_parquet(tmp_path / "sweep" / "table.parquet")
    assert table["mixed"].tolist()[:2] == ["4", "x"]
    assert pd.isna(table["mixed"][2])
    assert table["mixed"][3] == "[4, 4]"
    assert table["list"].tolist() == ["[0, 0]", "[1, 1]", "[2, 2]", "[3, 3]"]
    assert (table["whole"].dtype, table["flag"].dtype) == ("Int64", "boolean")
    assert table["real"].tolist() == [1.0, 1.1, 2.1, 3.1]
    assert table["large"][0] == str(10**30)
    pd.testing.assert_frame_equal(table, frame(runs))
    text = pd.read_csv(tmp_path / "sweep" / "table.csv")
    assert text["nmse"].tolist() == table["nmse"].tolist()
    tries = (tmp_path / "sweep" / "attempts.csv").read_text().splitlines()
    assert tries[0] == "id,number,where,cause,memory_mb,micro_batch,seconds"
    assert tries[1:] == ["a,1,slurm,,,,1.5", "a,2,local,,4000,,"]


def test_the_files_do_not_tell_an_interrupted_sweep_from_another(tmp_path: Path) -> None:
    given: list[tuple[dict[str, Any], float | str]] = [({R: 4}, 1e-3), ({R: 8}, 2e-3)]
    runs = planned(tmp_path / "a", given)
    others = planned(tmp_path / "b", given, seconds=99.0)
    write_table(frame(runs), [], tmp_path / "a")
    write_table(frame(others), [{"id": "x", "number": 1}], tmp_path / "b")
    for name in ("table.csv", "table.parquet"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_an_unwritable_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*table\.csv"):
        write_table(frame([]), [], tmp_path / "file")


def test_names_are_as_short_as_tells_them_apart() -> None:
    assert short_names([KIND, "reconstructor.kind", SEED, "a.b.rate", "a.c.rate", R]) == {
        KIND: "sampler.kind",
        "reconstructor.kind": "reconstructor.kind",
        SEED: "seed",
        "a.b.rate": "b.rate",
        "a.c.rate": "c.rate",
        R: "acceleration",
    }
    assert short_names(["rate", "a.rate"]) == {"rate": "rate", "a.rate": "a.rate"}


@pytest.mark.parametrize("metric", ["nmse", "psnr"])
def test_the_best_come_first_and_endless_scores_last(tmp_path: Path, metric: str) -> None:
    runs = planned(tmp_path, [({R: n}, nmse) for n, nmse in [(2, 3e-3), (3, 1e-3), (4, 2e-3)]])
    table = frame(runs)
    table.loc[1, metric] = np.inf
    assert ranked(table, metric)[R].tolist() == [4, 2, 3]


def test_seeds_are_averaged_before_the_best_is_chosen(tmp_path: Path) -> None:
    lucky, steady = (1e-4, 9e-3), (2e-3, 4e-3)
    given: list[tuple[dict[str, Any], float | str]] = []
    for n, scores in ((2, lucky), (3, steady)):
        given += [({KIND: "tile", "blocks": n, SEED: s}, nmse) for s, nmse in enumerate(scores)]
    given += [({KIND: "poisson", "blocks": 2, SEED: 0}, 1e-3)]
    given += [({KIND: "poisson", "blocks": 2, SEED: 1}, "running")]
    given += [({KIND: "random", "blocks": 2, SEED: 0}, "failed")]
    runs = planned(tmp_path, given)
    best = best_per_group(frame(runs), [KIND], "nmse")
    assert best[KIND].tolist() == ["poisson", "tile", "random"]
    assert best["n_seeds"].tolist() == [1, 2, 0]
    assert best["n_planned"].tolist() == [2, 2, 1]
    assert best.loc[1, "blocks"] == 3
    assert best.loc[1, "run"] == runs[2].id
    assert best.loc[1, "nmse"] == pytest.approx(3e-3)
    assert best.loc[1, "nmse_std"] == pytest.approx(np.sqrt(2) * 1e-3)
    text = " ".join(printed(runs).split())
    assert "± 1.41" in text
    assert "does not win by luck" in text
    assert "1 of 3 rows average fewer than the 2 seeds" in text


def test_a_seed_without_a_score_spoils_its_average(tmp_path: Path) -> None:
    runs = planned(tmp_path, [({"n": n, SEED: s}, 1e-3 * n) for n in (1, 2) for s in (0, 1)])
    table = frame(runs)
    table.loc[1, "nmse"] = np.nan
    assert best_per_group(table, [], "nmse")["n"].tolist() == [2]


def test_a_seed_that_is_grouped_by_is_not_averaged(tmp_path: Path) -> None:
    runs = planned(tmp_path, [({"n": n, SEED: s}, 1e-3 * n) for n in (1, 2) for s in (0, 1)])
    best = best_per_group(frame(runs), [SEED], "nmse")
    assert best[[SEED, "n", "n_seeds"]].to_numpy().tolist() == [[0, 1, 1], [1, 1, 1]]


def test_groups_tell_none_from_a_value(tmp_path: Path) -> None:
    runs = planned(tmp_path, [({"acs": None}, 1e-3), ({"acs": 4}, 3e-3), ({"acs": 0}, 2e-3)])
    best = best_per_group(frame(runs), ["acs"], "nmse")
    assert best["nmse"].tolist() == pytest.approx([1e-3, 2e-3, 3e-3])
    assert pd.isna(best.loc[0, "acs"])


def test_the_terminal_shows_the_best_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    given: list[tuple[dict[str, Any], float | str]] = [
        ({KIND: "tile", R: n}, n * 1e-4) for n in (8, 4, 6)
    ]
    runs = planned(tmp_path, [*given, ({KIND: "poisson", R: 4}, "failed")])
    text = printed(runs, top=2)
    assert "4 runs: 3 finished, 1 failed (1 out of memory)" in text
    lines = [line for line in text.splitlines() if "tile" in line]
    assert "4.00e-04 [3.60, 4.40]" in lines[0]
    assert "6.00e-04" in lines[1]
    assert "8.00e-04" not in text
    assert "2 runs are not shown" in text.replace("\n", " ")
    assert "all are in table.csv" in text.replace("\n", " ")
    assert "best of each sampler.kind" in text


def test_a_narrow_terminal_joins_the_settings(tmp_path: Path) -> None:
    names = [f"section.some_setting_{i}" for i in range(8)]
    runs = planned(tmp_path, [(dict.fromkeys(names, i), 1e-3 + i / 1e3) for i in range(2)])
    text = printed(runs, width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "some_setting_7=1" in text
    assert runs[0].id in text
    assert "some_setting_7=1" not in printed(runs, width=200)


def test_nothing_finished_is_said(tmp_path: Path) -> None:
    runs = planned(tmp_path, [({R: 4}, "queued"), ({R: 8}, "failed")])
    assert "2 runs: 1 queued, 1 failed (1 out of memory); no scores yet" in printed(runs)
    assert counted(frame([])) == "no runs"
    assert "no runs" in printed([])


def test_unknown_names_are_refused_with_the_valid_ones(tmp_path: Path) -> None:
    runs = planned(tmp_path, [({KIND: "tile", R: 4}, 1e-3)])
    with pytest.raises(UserError, match="unknown metric 'nsme': valid are nmse_kspace, nmse, "):
        printed(runs, metric="nsme")
    with pytest.raises(UserError, match=r"'kind': valid to group by are sampler\.kind, budget"):
        printed(runs, group_by=["kind"])
    with pytest.raises(UserError, match=r"unknown metric 'test\.nsme'"):
        best_per_group(frame(runs), [], "test.nsme")
