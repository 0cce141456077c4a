"""The table of a sweep, on small synthetic run folders."""

import json
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from kscout.errors import UserError
from kscout.experiment.config import load_experiment
from kscout.sweep.folder import SweepFolder
from kscout.sweep.ranking import best_per_group, ranked, settings
from kscout.sweep.spec import PlannedRun
from kscout.sweep.status import RunStatus
from kscout.sweep.table import counted, frame, print_table, write_table
from kscout.sweep.text import duration, short_names, written
from run_folders import write_run

KIND, R, SEED = "sampler.kind", "budget.acceleration", "seed"


Given = list[tuple[dict[str, Any], float | str]]

EXPERIMENT = load_experiment(Path("configs/digits.yaml"))


class Runs(NamedTuple):
    """A sweep as it was found."""

    folder: SweepFolder
    states: list[RunStatus]

    def path(self, i: int) -> Path:
        return self.folder.run(self.states[i].id).path

    def frame(self) -> pd.DataFrame:
        return frame(self.folder, self.states)

    def validated(self, losses: Sequence[str]) -> pd.DataFrame:
        """The frame, where each run has the validation losses given, one for each epoch."""
        for i, text in enumerate(losses):
            lines = [f"{epoch},{loss}" for epoch, loss in enumerate(text.split())]
            (self.path(i) / "metrics.csv").write_text("\n".join(["epoch,val_loss", *lines]))
        return self.frame()


def planned(root: Path, given: Sequence[tuple[dict[str, Any], float | str]], **more: Any) -> Runs:
    """Runs with settings, finished if an NMSE is given, else in the state given."""
    runs = Runs(SweepFolder(root / "sweep"), [])
    for i, (chosen, outcome) in enumerate(given):
        plan = PlannedRun(f"{i:010x}", EXPERIMENT, chosen)
        state = "finished" if isinstance(outcome, float) else outcome
        if isinstance(outcome, float):
            write_run(runs.folder.run(plan.id).path, plan.id, outcome, **more)
        runs.states.append(RunStatus(plan, state, "out of memory" if state == "failed" else None))
    return runs


def printed(runs: Runs | pd.DataFrame, width: int = 140, **options: Any) -> str:
    text = StringIO()
    table = runs.frame() if isinstance(runs, Runs) else runs
    print_table(table, Console(file=text, width=width), **options)
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
    table = runs.frame()
    assert list(table["run"]) == [status.id for status in runs.states]
    assert list(table["state"]) == ["finished", "failed", "finished", "waiting"]
    assert settings(table) == [KIND, R, "training.noise"]
    head = ["run", "state", "cause", KIND, R, "training.noise", "n_samples", "acceleration"]
    scores = ["val_loss", "nmse_kspace", "nmse_kspace_low", "nmse_kspace_high"]
    assert list(table)[:12] == [*head, *scores]
    assert table["nmse_kspace"].tolist() == pytest.approx([3e-3, np.nan, 1e-3, np.nan], nan_ok=True)
    assert table.loc[2, "nmse_kspace_high"] == pytest.approx(1.1e-3)
    assert table["n_samples"].tolist()[0] == 60
    assert pd.isna(table.loc[1, "n_samples"])
    assert not any("seconds" in name for name in table)


def test_other_test_conditions_follow_with_their_names(tmp_path: Path) -> None:
    runs = planned(tmp_path, [({R: 4}, 1e-3), ({R: 8}, 1e-3)])
    path = runs.path(1) / "results.json"
    results = json.loads(path.read_text())
    harder = {**results["summary"]["test"], "nmse": {"mean": 0.5, "low": 0.4, "high": 0.6}}
    results["summary"] = {"test_b": harder, "val": harder, "test_a": harder, **results["summary"]}
    path.write_text(json.dumps(results))
    table = runs.frame()
    names = [name for name in table if name.endswith("nmse")]
    assert names == ["nmse", "test_a.nmse", "test_b.nmse"]
    assert pd.isna(table.loc[0, "test_b.nmse"])
    assert table.loc[1, "test_b.nmse"] == 0.5
    with pytest.raises(UserError, match="'test_c': valid are test, test_a, test_b"):
        best_per_group(table, [R], "test_c.nmse")
    assert best_per_group(table, [R], "test_a.nmse")["test_a.nmse"].tolist()[0] == 0.5


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"name": "x"}'])
def test_broken_results_fail_that_run_alone(tmp_path: Path, text: str) -> None:
    runs = planned(tmp_path, [({R: 4}, 1e-3), ({R: 8}, 2e-3)])
    (runs.path(0) / "results.json").write_text(text)
    table = runs.frame()
    assert table["state"].tolist() == ["failed", "finished"]
    assert table.loc[0, "cause"] == "unreadable results"
    assert table["nmse"].tolist() == pytest.approx([np.nan, 2e-3], nan_ok=True)


def test_a_run_without_its_folder_fails_that_run_alone(tmp_path: Path) -> None:
    runs = planned(tmp_path, [({R: 4}, "finished")])
    table = runs.frame()
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
    write_table(runs.frame(), attempts, tmp_path / "sweep")
    table = pd.read_parquet(tmp_path / "sweep" / "table.parquet")
    assert table["mixed"].tolist()[:2] == ["4", "x"]
    assert pd.isna(table["mixed"][2])
    assert table["mixed"][3] == "[4, 4]"
    assert table["list"].tolist() == ["[0, 0]", "[1, 1]", "[2, 2]", "[3, 3]"]
    assert (table["whole"].dtype, table["flag"].dtype) == ("Int64", "boolean")
    assert table["real"].tolist() == [1.0, 1.1, 2.1, 3.1]
    assert table["large"][0] == str(10**30)
    pd.testing.assert_frame_equal(table, runs.frame())
    text = pd.read_csv(tmp_path / "sweep" / "table.csv")
    assert text["nmse"].tolist() == table["nmse"].tolist()
    tries = (tmp_path / "sweep" / "attempts.csv").read_text().splitlines()
    assert tries[0] == "id,number,where,cause,memory_mb,micro_batch,seconds"
    assert tries[1:] == ["a,1,slurm,,,,1.5", "a,2,local,,4000,,"]


def test_the_files_do_not_tell_an_interrupted_sweep_from_another(tmp_path: Path) -> None:
    given: Given = [({R: 4}, 1e-3), ({R: 8}, 2e-3)]
    runs = planned(tmp_path / "a", given)
    others = planned(tmp_path / "b", given, seconds=99.0)
    write_table(runs.frame(), [], tmp_path / "a")
    write_table(others.frame(), [{"id": "x", "number": 1}], tmp_path / "b")
    for name in ("table.csv", "table.parquet"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_an_unwritable_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*table\.csv"):
        write_table(planned(tmp_path, []).frame(), [], tmp_path / "file")


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


def test_settings_and_times_are_written_for_people() -> None:
    assert written({"kind": "tile", "tile": [4, 4], "on": True, "acs": None, "rate": 1e-4}) == (
        "(kind=tile tile=[4, 4] on=true acs=none rate=0.0001)"
    )
    seconds = (1.25, 150.0, 9000.0, 180_000.0)
    assert [duration(s) for s in seconds] == ["1.2 s", "2.5 min", "2.5 h", "2.1 d"]


@pytest.mark.parametrize("metric", ["nmse", "psnr"])
def test_the_best_come_first_and_endless_scores_last(tmp_path: Path, metric: str) -> None:
    runs = planned(tmp_path, [({R: n}, nmse) for n, nmse in [(2, 3e-3), (3, 1e-3), (4, 2e-3)]])
    table = runs.frame()
    table.loc[1, metric] = np.inf
    assert ranked(table, metric)[R].tolist() == [4, 2, 3]


def test_seeds_are_averaged_before_the_best_is_chosen(tmp_path: Path) -> None:
    lucky, steady = (1e-4, 9e-3), (2e-3, 4e-3)
    given: Given = []
    for n, scores in ((2, lucky), (3, steady)):
        given += [({KIND: "tile", "blocks": n, SEED: s}, nmse) for s, nmse in enumerate(scores)]
    given += [({KIND: "poisson", "blocks": 2, SEED: 0}, 1e-3)]
    given += [({KIND: "poisson", "blocks": 2, SEED: 1}, "running")]
    given += [({KIND: "random", "blocks": 2, SEED: 0}, "failed")]
    runs = planned(tmp_path, given)
    best = best_per_group(runs.frame(), [KIND], "nmse")
    assert best[KIND].tolist() == ["poisson", "tile", "random"]
    assert best["n_seeds"].tolist() == [1, 2, 0]
    assert best["n_planned"].tolist() == [2, 2, 1]
    assert best.loc[1, "blocks"] == 3
    assert best.loc[1, "run"] == runs.states[2].id
    assert best.loc[1, "nmse"] == pytest.approx(3e-3)
    assert best.loc[1, "nmse_std"] == pytest.approx(np.sqrt(2) * 1e-3)
    text = " ".join(printed(runs).split())
    assert "± 1.41" in text
    assert "does not win by luck" in text
    assert "1 of 3 rows average fewer than the 2 seeds" in text


@pytest.mark.parametrize(
    ("losses", "expected"),
    [(["0.5 0.2 0.4", "0.3"], [0.2, 0.3]), (["", "0.3"], [np.nan, 0.3]),
     (["nan 0.4", "nan nan"], [0.4, np.inf])],
)  # fmt: skip
def test_the_validation_loss_is_the_lowest(
    tmp_path: Path, losses: list[str], expected: list[float]
) -> None:
    table = planned(tmp_path, [({R: 4}, 1e-3), ({R: 8}, 1e-3)]).validated(losses)
    assert table["val_loss"].tolist() == pytest.approx(expected, nan_ok=True)


def test_a_log_that_cannot_be_read_fails_that_run_alone(tmp_path: Path) -> None:
    table = planned(tmp_path, [({R: 4}, 1e-3), ({R: 8}, 1e-3)]).validated(["broken", "0.3"])
    assert table["cause"].tolist() == pytest.approx(["unreadable results", np.nan], nan_ok=True)


def test_the_best_of_a_group_is_chosen_by_validation_loss(tmp_path: Path) -> None:
    """The lucky settings on the test data are worse on validation data, over both seeds."""
    lucky = [({KIND: "tile", "n": 1, SEED: s}, nmse) for s, nmse in enumerate((1e-4, 2e-4))]
    steady = [({KIND: "tile", "n": 2, SEED: s}, nmse) for s, nmse in enumerate((3e-3, 5e-3))]
    given: Given = [*lucky, *steady, ({KIND: "poisson", "n": 1, SEED: 0}, 5e-3)]
    runs = planned(tmp_path, given)
    for i in range(len(given)):  # a condition on which the order is the other way round
        results = json.loads((runs.path(i) / "results.json").read_text())
        nmse = dict.fromkeys(("mean", "low", "high"), 1 - results["summary"]["test"]["ssim"]["low"])
        results["summary"]["test_x"] = {**results["summary"]["test"], "nmse": nmse}
        (runs.path(i) / "results.json").write_text(json.dumps(results))
    table = runs.validated(["0.9 0.1", "0.9 0.8", "0.4", "0.2", "0.5"])
    for metric in ("nmse", "psnr", "test_x.nmse"):
        best = best_per_group(table, [KIND], metric)
        assert dict(zip(best[KIND], best["n"], strict=True)) == {"tile": 2, "poisson": 1}
        assert dict(zip(best[KIND], best["n_settings"], strict=True)) == {"tile": 2, "poisson": 1}
    assert best_per_group(table, [KIND], "nmse")["nmse"].tolist() == pytest.approx([4e-3, 5e-3])
    text = " ".join(printed(table).split())
    assert "best of each sampler.kind, chosen by validation loss" in text
    assert "1 to 2 settings to choose from" in text
    assert "ranked on the test data: the first owes something to luck" in text
    assert "too good" not in text


@pytest.mark.parametrize(
    ("losses", "other", "why"),
    [(["0.9", ""], {}, "some runs have no validation loss"),
     (["0.9", "0.1"], {"training.loss": "nmse_image"}, "of different training.loss cannot"),
     (["0.9", "0.1"], {"data.noise": 0.1}, "of different data.noise cannot")],
)  # fmt: skip
def test_without_losses_to_compare_the_choice_is_on_test_and_said_to_be(
    tmp_path: Path, losses: list[str], other: dict[str, Any], why: str
) -> None:
    given: Given = [({KIND: "tile", "n": 1}, 1e-3), ({KIND: "tile", "n": 2, **other}, 2e-3)]
    runs = planned(tmp_path, [*given, ({KIND: "poisson", "n": 1}, "running")])
    table = runs.validated(losses)
    assert best_per_group(table, [KIND], "nmse")["n"].tolist()[0] == 1
    text = " ".join(printed(table).split())
    assert "chosen on the test data" in text
    assert why in text
    assert "too good" in text


def test_what_is_grouped_by_may_differ_between_validation_losses(tmp_path: Path) -> None:
    given: Given = [({"data.noise": s, "n": n}, n * 1e-3) for s in (0.1, 0.2) for n in (1, 2)]
    table = planned(tmp_path, given).validated(["0.9", "0.1"] * 2)
    assert best_per_group(table, ["data.noise"], "nmse")["n"].tolist() == [2, 2]
    assert best_per_group(table, [], "nmse")["n"].tolist() == [1]


def test_groups_of_one_setting_have_no_choice(tmp_path: Path) -> None:
    runs = planned(tmp_path, [({KIND: kind}, 1e-3) for kind in ("tile", "poisson")])
    text = printed(runs)
    assert "best of each sampler.kind" in text
    assert "chosen" not in text
    assert "settings" not in text


def test_a_seed_without_a_score_spoils_its_average(tmp_path: Path) -> None:
    runs = planned(tmp_path, [({"n": n, SEED: s}, 1e-3 * n) for n in (1, 2) for s in (0, 1)])
    table = runs.frame()
    table.loc[1, "nmse"] = np.nan
    assert best_per_group(table, [], "nmse")["n"].tolist() == [2]


def test_a_seed_that_is_grouped_by_is_not_averaged(tmp_path: Path) -> None:
    runs = planned(tmp_path, [({"n": n, SEED: s}, 1e-3 * n) for n in (1, 2) for s in (0, 1)])
    best = best_per_group(runs.frame(), [SEED], "nmse")
    assert best[[SEED, "n", "n_seeds"]].to_numpy().tolist() == [[0, 1, 1], [1, 1, 1]]


def test_groups_tell_none_from_a_value(tmp_path: Path) -> None:
    runs = planned(tmp_path, [({"acs": None}, 1e-3), ({"acs": 4}, 3e-3), ({"acs": 0}, 2e-3)])
    best = best_per_group(runs.frame(), ["acs"], "nmse")
    assert best["nmse"].tolist() == pytest.approx([1e-3, 2e-3, 3e-3])
    assert pd.isna(best.loc[0, "acs"])


def test_the_terminal_shows_the_best_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    given: Given = [({KIND: "tile", R: n}, n * 1e-4) for n in (8, 4, 6)]
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
    assert runs.states[0].id in text
    assert "some_setting_7=1" not in printed(runs, width=200)


def test_nothing_finished_is_said(tmp_path: Path) -> None:
    runs = planned(tmp_path, [({R: 4}, "queued"), ({R: 8}, "failed")])
    assert "2 runs: 1 queued, 1 failed (1 out of memory); no scores yet" in printed(runs)
    assert counted(planned(tmp_path, []).frame()) == "no runs"
    assert "no runs" in printed(planned(tmp_path, []))


def test_unknown_names_are_refused_with_the_valid_ones(tmp_path: Path) -> None:
    runs = planned(tmp_path, [({KIND: "tile", R: 4}, 1e-3)])
    with pytest.raises(UserError, match="unknown metric 'nsme': valid are nmse_kspace, nmse, "):
        printed(runs, metric="nsme")
    with pytest.raises(UserError, match=r"'kind': valid to group by are sampler\.kind, budget"):
        printed(runs, group_by=["kind"])
    with pytest.raises(UserError, match=r"unknown metric 'test\.nsme'"):
        best_per_group(runs.frame(), [], "test.nsme")
