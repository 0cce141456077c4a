"""What tables and notes say of a suite's results, and whose results they are."""

import json
from copy import deepcopy
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from bench.conftest import Done
from bench.suites import TINY, suite
from commands import kscout, refused
from kscout.bench import results, tables
from kscout.errors import UserError
from kscout.evaluation import METRICS


def test_the_summary_has_every_learned_mask(found: Any) -> None:
    found = deepcopy(found)
    found["methods"]["two"] = found["methods"]["learned"]
    row = deepcopy(found["results"]["stack"]["test"]["methods"]["learned"])
    row["difference"]["mean"] = -0.5
    found["results"]["stack"]["test"]["methods"]["two"] = row
    assert [row[3].text for row in tables.in_short(found).rows] == ["learned", "two"]
    assert tables.in_short(found).rows[1][4].text == "-0.50"
    found["methods"] = {"variable density": found["methods"]["variable density"]}
    assert [row[3].text for row in tables.in_short(found).rows] == ["-"]


def test_other_metrics_are_paired_too(found: Any, records: pd.DataFrame) -> None:
    row = found["results"]["stack"]["test"]["methods"]["learned"]["by_metric"]
    test = records[records["split"] == "test"]
    for metric in ("psnr", "ssim"):
        by_slice = test.pivot_table(index=["seed", "volume"], columns="method", values=metric)
        ahead = (by_slice["learned"] - by_slice["variable density"]).mean()
        assert row[metric]["difference"]["mean"] == pytest.approx(ahead)
        (section,) = tables.sections(found)
        assert f"{ahead:+.{ {'psnr': 2, 'ssim': 4}[metric] }f} [" in section.sentences[1]


def test_one_mask_under_two_names_is_told(found: Any) -> None:
    assert found["same_masks"] == {"stack": []}
    found = deepcopy(found)
    found["same_masks"]["stack"] = [["learned", "variable density"]]
    notes = next(tables.sections(found)).notes
    assert "learned and variable density are one mask, at the first seed" in notes


def test_designs_for_another_reconstructor_are_told(found: Any) -> None:
    said = "learned is made for the best linear reconstruction, not for this one"
    assert said not in next(tables.sections(found)).notes
    found = deepcopy(found)
    found["methods"]["learned"]["trials"][0] = {"kind": "optimal_design"}
    assert said in next(tables.sections(found)).notes
    found["reconstructors"]["stack"]["reconstructor"]["kind"] = "gaussian_sense"
    assert said not in next(tables.sections(found)).notes


def test_seeds_that_gave_the_same_have_no_range() -> None:
    difference = {"by_seed": [0.301, 0.299, 0.303]}
    assert tables.by_seed(difference)[:2] == ("-", "") == tables.by_seed(None)[:2]
    difference["by_seed"][1] = -1.2
    assert tables.by_seed(difference)[:2] == ("-1.20", "to +0.30")


def records_of(errors: list[float]) -> list[dict[str, Any]]:
    where = [{"split": "test", "volume": i, "slice": 0} for i in range(len(errors))]
    return [place | dict.fromkeys(METRICS, e) for place, e in zip(where, errors, strict=True)]


def test_the_best_fixed_mask_is_that_of_the_tested_quantity(found: Any) -> None:
    """Of equal means over slices, that which is better on most of them."""
    even, uneven, learned = [4.0, 4.0, 4.0], [1.0, 1.0, 10.1], [3.0, 4.0, 4.0]
    masks = TINY["masks"] | {"even": [{"kind": "uniform_2d"}, {"kind": "caipirinha"}]}
    errors = {"variable density": uneven, "learned": learned, "even": even}
    records = {method: [records_of(values)] * 3 for method, values in errors.items()}
    compared = results.compared(suite(masks=masks), records, "test")
    assert list(compared["methods"]) == ["learned", "even", "variable density"]
    assert compared["best_fixed"] == "variable density"
    found = {**found, "results": {"stack": {"test": compared}}}
    (section,) = tables.sections(found)
    others = compared["methods"]["learned"]["others"]
    assert list(others) == ["even"]
    db = 10 * np.log10(4 / 3) / 3
    assert others["even"]["difference"]["mean"] == pytest.approx(db)
    assert f"beside the other fixed masks, in dB: even {db:+.2f} [" in section.sentences[-1]
    assert section.notes[0].startswith("scored on 3 scans: ")
    assert section.notes[1].startswith(
        "by dB the order is another: variable density, learned, even. "
    )
    records["variable density"] = [records_of([2.0, 2.0, 2.0])] * 3
    found["results"]["stack"]["test"] = results.compared(suite(masks=masks), records, "test")
    assert not any("by dB" in note for note in next(tables.sections(found)).notes)


def test_a_note_says_that_training_and_score_are_of_different_errors(found: Any) -> None:
    said = "lowers the error in k-space"
    assert any(said in note for note in next(tables.sections(found)).notes)
    found = deepcopy(found)
    training = found["reconstructors"]["stack"]["training"]
    found["reconstructors"]["stack"]["training"] = training | {"loss": "nmse_image"}
    assert not any(said in note for note in next(tables.sections(found)).notes)
    found["reconstructors"]["stack"]["training"] = training
    for work in found["work"]["stack"].values():
        work["gradient_steps"] = [0]
    assert not any(said in note for note in next(tables.sections(found)).notes)


def test_a_note_says_where_a_mask_is_all_but_the_one_that_training_began_from(found: Any) -> None:
    found, said = deepcopy(found), "the mask that its training began from"
    work = found["work"]["stack"]["learned"]
    assert all(0 < n < 172 for n in work["n_points_changed"])
    assert found["work"]["stack"]["variable density"]["n_points_changed"] == [None] * 3
    work["n_points_changed"] = [0, 50, 17]  # of 172
    note = next(n for n in next(tables.sections(found)).notes if said in n)
    assert note == f"learned is, but for 0 to 50 of 172 points (by seed), {said}"
    work["n_points_changed"] = [18, 50, 60]
    assert not any(said in note for note in next(tables.sections(found)).notes)


def test_headings_stay_whole_in_a_narrow_terminal(found: Any, tmp_path: Path) -> None:
    found = deepcopy(found)
    methods = found["results"]["stack"]["test"]["methods"]
    draws = {"error_db": [-10.0, -10.2, -10.1], "bound_db": [-12.0, -12.1, -12.2]}
    found["certificate"] = {"stack": {"test": dict.fromkeys(methods, draws)}}
    methods["learned"]["difference"] |= {"mean": -11.0, "low": -12.34, "high": -10.01}
    methods["learned"]["verdict"] = "not distinguishable"
    (tmp_path / "x.json").write_text(json.dumps(found))
    printed = StringIO()
    tables.print_results(tmp_path / "x.json", Console(file=printed, width=80))
    lines = [" ".join(line.split()) for line in printed.getvalue().splitlines()]
    assert "dB ahead of PSNR dB to" in lines
    assert "method NMSE image best fixed verdict dB bound" in lines
    assert any(line.endswith(" 2.00") for line in lines)
    assert any(line.endswith(" distinguishable ± 0.10") for line in lines)


def test_the_summary_is_one_row_for_each_reconstructor(done: Done, found: Any, capsys: Any) -> None:
    ended = kscout(capsys, "bench", "table", done.results, done.results)
    lines = ended.out.strip().splitlines()
    assert len(lines) == 4
    assert lines[2] == lines[3]
    difference = found["results"]["stack"]["test"]["methods"]["learned"]["difference"]
    assert f"| {difference['mean']:+.2f} [" in lines[2]
    assert lines[2].startswith("| tiny suite | stack | test | variable density | learned |")


def test_a_damaged_result_is_told_what_to_do(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "x.json").write_text('{"suite": "x"')
    assert "run its suite again" in refused(capsys, "bench", "table", tmp_path / "x.json")
    assert "cannot be read" in refused(capsys, "bench", "table", tmp_path / "y.json")


@pytest.mark.parametrize("damage", [{"methods": None}, {"results": {"a": None}}, {"methods": "x"}])
def test_results_with_holes_are_refused(
    found: Any, tmp_path: Path, capsys: Any, damage: dict[str, Any]
) -> None:
    (tmp_path / "x.json").write_text(json.dumps(found | damage))
    said = refused(capsys, "bench", "table", tmp_path / "x.json")
    assert "x.json is no result of kscout bench run, or damaged" in said


@pytest.mark.parametrize("schema", [None, 1, results.SCHEMA + 1])
def test_results_of_another_schema_are_refused(
    found: Any, tmp_path: Path, capsys: Any, schema: int | None
) -> None:
    others = {name: value for name, value in found.items() if name != "schema"}
    others |= {} if schema is None else {"schema": schema}
    (tmp_path / "x.json").write_text(json.dumps(others))
    said = refused(capsys, "bench", "table", tmp_path / "x.json")
    assert f"x.json is of schema {schema or 1}: valid is {results.SCHEMA}, which kscout" in said


def test_results_of_another_suite_are_not_overwritten(tmp_path: Path) -> None:
    mine, path = suite(), tmp_path / "tiny.json"
    results.refuse_results_of_another(path, mine)  # none are there
    document = {
        "metric": mine.metric,
        "seeds": mine.seeds[:2],
        "data": mine.data.model_dump(mode="json"),
        "methods": {name: results._method(mine, name) for name in list(mine.masks)[:1]},
        "reconstructors": {n: results._reconstructor(mine, n) for n in mine.reconstructors},
    }
    path.write_text(json.dumps(document))
    results.refuse_results_of_another(path, mine)  # fewer seeds and methods: it has grown
    for key, value in (("data", {}), ("seeds", [0, 99]), ("methods", {"other": 1})):
        path.write_text(json.dumps(document | {key: value}))
        with pytest.raises(UserError, match=f"another suite of this name \\({key} differ\\)"):
            results.refuse_results_of_another(path, mine)
    path.write_text("{")
    results.refuse_results_of_another(path, mine)  # of none; it is set aside later
