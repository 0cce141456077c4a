"""The pictures and the page of a sweep, on small synthetic run folders."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from kscout.errors import UserError
from kscout.experiment.config import load_experiment
from kscout.sweep.figures import marginal_effects, parallel_coordinates
from kscout.sweep.folder import SweepFolder
from kscout.sweep.html import failures, write_report
from kscout.sweep.scales import MOST_MARKS, number_scale, setting_scale
from kscout.sweep.spec import PlannedRun
from kscout.sweep.status import RunStatus
from kscout.sweep.table import frame
from run_folders import write_run


def scored(n: int, /, **columns: Any) -> pd.DataFrame:
    """A frame as of ``n`` finished runs; NMSE grows and PSNR falls from run to run."""
    nmse = np.geomspace(1e-5, 1e-3, n)
    known = {"run": [f"{i:010x}" for i in range(n)], "state": "finished", "cause": None}
    scores = {"val_loss": nmse, "nmse": nmse, "psnr": -10 * np.log10(nmse), "ssim": 1 - nmse}
    return pd.DataFrame({**known, **columns, "n_samples": 60, "acceleration": 4.0, **scores})


def titles(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def test_few_values_are_steps_in_order_numbers_before_words() -> None:
    scale = setting_scale([16, None, 2, 16, 4])
    assert scale.labels == ["2", "4", "16", "none"]
    assert scale.positions.tolist() == [2, 3, 0, 2, 1]
    assert not scale.is_numeric
    assert setting_scale(["[11, 11]", "x", "[5, 5]"]).labels == ["[5, 5]", "[11, 11]", "x"]
    assert setting_scale([True, False]).labels == ["false", "true"]


def test_many_numbers_have_an_axis_of_numbers() -> None:
    rng = np.random.default_rng(0)
    even = setting_scale([*rng.uniform(0, 1, 50), None])
    assert even.is_numeric
    assert np.isnan(even.positions[-1])
    assert 0 <= even.ticks[0] < even.ticks[-1] <= 1
    spread = setting_scale([float(10**power) for power in rng.uniform(-5, -1, 50)])
    assert spread.ticks == pytest.approx([-4, -3, -2])
    assert spread.labels == ["1e-4", "0.001", "0.01"]
    whole = setting_scale(list(range(1, 13)))
    assert all(float(label).is_integer() for label in whole.labels)


@pytest.mark.parametrize("high", [1.0, 1.5, 9.0, 11.0, 400.0, 1e7, 1e30])
def test_a_log_axis_has_some_marks_but_not_too_many(high: float) -> None:
    scale = number_scale([3e-5, 3e-5 * high, math.inf, math.nan, -1.0, None], is_log=True)
    assert len(scale.labels) == len(set(scale.labels)) <= MOST_MARKS
    assert len(scale.labels) >= (2 if high > 1 else 1)
    assert np.isfinite(scale.positions).tolist() == [True, True, False, False, False, False]


def test_a_panel_for_each_setting_that_varies() -> None:
    table = scored(
        40, **{"a.kind": ["x", "y"] * 20, "b.kind": list(range(40)), "n": 3, "seed": [0, 1] * 20}
    )
    figure = marginal_effects(table, "nmse")
    assert figure is not None
    assert titles(figure) == ["a.kind", "b.kind", "seed"]
    assert len(figure.axes) == 3
    limits = {axes.get_ylim() for axes in figure.axes}
    assert np.ptp(list(limits), axis=0).max() < 0.2  # one scale


def test_medians_are_those_of_the_runs_with_the_value() -> None:
    table = scored(5, n=[1, 1, 1, 2, 2])
    figure = marginal_effects(table, "psnr")
    assert figure is not None
    medians = figure.axes[0].lines[-1].get_ydata()
    psnr = table["psnr"]
    assert medians == pytest.approx([psnr[1], (psnr[3] + psnr[4]) / 2])


def test_settings_with_more_seeds_do_not_weigh_more() -> None:
    """Of n=1, one setting has three seeds and another one; their means are 4 and 10."""
    table = scored(6, n=[1, 1, 1, 1, 2, 2], kind=list("xxxyxy"), seed=[0, 1, 2, 0, 0, 0])
    table["psnr"] = [1.0, 2.0, 9.0, 10.0, 5.0, 6.0]
    figure = marginal_effects(table, "psnr")
    assert figure is not None
    assert titles(figure) == ["n", "kind", "seed"]
    points, medians = (np.asarray(figure.axes[0].lines[i].get_ydata()) for i in (0, -1))
    assert points.shape == (6,)
    assert medians == pytest.approx([7.0, 5.5])
    assert figure.axes[2].lines[-1].get_ydata() == pytest.approx([5.5, 2.0, 9.0])


@pytest.mark.parametrize("metric", ["nmse", "psnr"])
def test_the_best_run_is_on_top_whatever_the_metric(metric: str) -> None:
    table = scored(30, n=[*range(30)][::-1], kind=["x", "y", "z"] * 10)
    figure = parallel_coordinates(table, metric)
    assert figure is not None
    (axes,) = figure.axes
    (lines,) = (c for c in axes.collections if isinstance(c, LineCollection))
    assert len(lines.get_segments()) == 30
    best = lines.get_segments()[-1][:, 1]
    assert best[-1] == pytest.approx(1)
    assert best[0] == pytest.approx(1)  # n is largest in the best run
    assert lines.get_segments()[0][-1, 1] == pytest.approx(0)
    assert figure.get_size_inches()[0] * 100 <= 1121


@pytest.mark.parametrize("draw", [marginal_effects, parallel_coordinates])
def test_without_scores_or_settings_there_is_no_picture(draw: Any) -> None:
    assert draw(scored(3, n=1), "nmse") is None
    assert draw(scored(3, n=[1, 2, 3]).assign(state="running"), "nmse") is None
    assert draw(scored(3, n=[1, 2, 3]).assign(nmse=math.nan), "nmse") is None
    assert draw(scored(3, n=[1, 1, 3]).iloc[:0], "nmse") is None
    one_value_left = scored(3, n=[1, 1, 3]).assign(state=["finished", "finished", "failed"])
    assert draw(one_value_left, "nmse") is None


@pytest.mark.parametrize("draw", [marginal_effects, parallel_coordinates])
def test_awkward_sweeps_are_drawn(draw: Any, tmp_path: Path) -> None:
    wide = scored(40, kind=[f"a_rather_long_name_{i} $x$" for i in range(40)], n=[1, 2] * 20)
    same = scored(2, n=[1, 2]).assign(nmse=1e-3)
    many = scored(800, **{f"s{i}": np.arange(800) % (i + 2) for i in range(12)})
    absent = scored(40, rate=[*np.geomspace(1e-4, 1, 30), *[None] * 10])
    broken = scored(4, n=[1, 2, 3, 4]).assign(nmse=[math.inf, 0.0, 1e-3, 1e-4])
    for table in (wide, same, many, absent, broken):
        draw(table, "nmse").savefig(tmp_path / "x.png", dpi=40)


def sweep(root: Path, states: Sequence[str] = ("finished", "failed", "finished", "waiting")) -> Any:
    """The frame of four runs in these states."""
    experiment, found = load_experiment(Path("configs/digits.yaml")), []
    for i, (kind, state) in enumerate(zip(("tile", "tile", "<b>", "tile"), states, strict=True)):
        run = PlannedRun(f"{i:010x}", experiment, {"sampler.kind": kind, "seed": i})
        if state == "finished":
            write_run(root / "runs" / run.id, run.id, 1e-3 * (i + 1))
        found.append(RunStatus(run, state, "error" if state == "failed" else None))
    return frame(SweepFolder(root), found)


ATTEMPTS = [
    {"id": f"{0:010x}", "number": 1, "cause": "time limit", "seconds": 3600.0, "error": ""},
    {"id": f"{0:010x}", "number": 2, "cause": None, "seconds": 1800.0, "error": ""},
    {"id": f"{1:010x}", "number": 1, "cause": "error", "seconds": 9.0,
     "error": "Traceback\n  in f\nValueError: <i>no</i>\n"},
    {"id": f"{2:010x}", "number": 1, "cause": None, "seconds": None, "error": None},
]  # fmt: skip


def test_the_page_stands_alone_and_escapes_what_it_quotes(tmp_path: Path) -> None:
    out = write_report("<u>", sweep(tmp_path), ATTEMPTS, tmp_path / "report.html")
    text = out.read_text()
    assert text.lstrip().startswith("<!DOCTYPE html>")
    assert "4 runs: 2 finished, 1 waiting, 1 failed (1 error)" in text
    assert "ValueError: &lt;i&gt;no&lt;/i&gt;" in text
    assert "&lt;b&gt;" in text
    assert not any(tag in text for tag in ("<i>", "<b>", "<u>", "<script", "http"))
    assert text.count("data:image/png") == 2
    assert "90.2 min" in text
    assert "of which 1 repeat" in text
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        "marginal_effects.png", "parallel_coordinates.png",
    }  # fmt: skip


def test_nothing_finished_makes_a_page_without_pictures(tmp_path: Path) -> None:
    table = sweep(tmp_path, ["queued"] * 4)
    text = write_report("early", table, [], tmp_path / "report.html").read_text()
    assert "nothing to rank" in text
    assert "<img" not in text
    assert "Failures" not in text
    assert not (tmp_path / "figures").exists()


def test_one_message_is_told_once_with_the_runs_that_say_it() -> None:
    table = scored(5, n=[1, 2, 3, 4, 5]).assign(
        state=["failed", "failed", "finished", "failed", "failed"],
        cause=["error", "error", None, "killed", "error"],
    )
    attempts = [
        {"id": f"{i:010x}", "number": n, "error": error}
        for i, n, error in [
            (0, 2, "a\nlast"), (0, 1, "before"), (1, 1, "b\nlast "), (2, 1, "gone"), 
            (4, 1, "other"),
        ]
    ]  # fmt: skip
    found = failures(table, attempts)
    assert [(f.cause, f.message, len(f.runs)) for f in found] == [
        ("error", "last", 2), ("killed", "", 1), ("error", "other", 1),
    ]  # fmt: skip


def test_an_unknown_metric_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown metric 'x': valid are"):
        write_report("s", sweep(tmp_path), [], tmp_path / "report.html", metric="x")
    assert not (tmp_path / "report.html").exists()


def test_the_frame_of_run_folders_is_drawn(tmp_path: Path) -> None:
    assert parallel_coordinates(sweep(tmp_path), "ssim") is not None
