"""A sweep's YAML, and the runs that it stands for."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from commands import TINY
from kscout.errors import UserError
from kscout.sweep.spec import Sweep, differences, load_sweep, write_sweep

ROOT = Path(__file__).parent.parent.parent
BASE = {key: value for key, value in TINY.items() if key != "name"} | {"name": "base"}


def sweep(**changes: Any) -> Sweep:
    return Sweep.model_validate({"name": "s", "base": BASE} | changes)


def loaded(folder: Path, **changes: Any) -> Sweep:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({"name": "s", "base": BASE} | changes))
    return load_sweep(path)


def test_every_combination_once_in_order() -> None:
    grid = {"budget.acceleration": [4, 8], "reconstructor.n_blocks": [1, 2, 3]}
    runs = sweep(grid=grid, seeds=2).plan()
    assert [tuple(run.settings.values()) for run in runs] == list(
        product([4, 8], [1, 2, 3], [0, 1])
    )
    assert len({run.id for run in runs}) == 12
    assert all(run.experiment.name == run.id for run in runs)
    last = runs[-1].experiment
    assert (last.budget.acceleration, last.reconstructor.n_blocks, last.seed) == (8, 3, 1)


def test_lists_that_go_together() -> None:
    group = {"reconstructor.n_blocks": [1, 2], "training.learning_rate": [0.01, 0.001]}
    runs = sweep(zip=[group], grid={"budget.acceleration": [4, 8]}).plan()
    found = [
        (r.experiment.reconstructor.n_blocks, r.experiment.training.learning_rate) for r in runs
    ]
    assert found == [(1, 0.01), (2, 0.001)] * 2


def test_a_section_replaces_a_section_and_a_path_changes_what_is_in_it() -> None:
    grid = {
        "sampler.noise": [0.3],
        "sampler": [{"kind": "tile", "tile": [2, 2]}, {"kind": "lines"}],
    }
    runs = sweep(grid=grid).plan()
    assert [run.experiment.sampler.kind for run in runs] == ["tile", "lines"]
    assert all(run.experiment.sampler.noise == 0.3 for run in runs)
    assert runs[0].settings == {
        "sampler.noise": 0.3,
        "sampler.kind": "tile",
        "sampler.tile": [2, 2],
    }


def test_exclusions_look_at_the_whole_experiment() -> None:
    grid = {"sampler.kind": ["tile", "global"], "budget.acceleration": [4, 8, 16]}
    rules = [
        {"sampler.kind": "tile", "budget.acceleration": [8, 16]},
        {"reconstructor.n_blocks": 3},
    ]
    with pytest.raises(UserError, match=r"no run has \{'reconstructor.n_blocks': 3\}"):
        sweep(grid=grid, exclude=rules).plan()
    runs = sweep(grid=grid, exclude=rules[:1]).plan()
    assert [(r.experiment.sampler.kind, r.experiment.budget.acceleration) for r in runs] == [
        ("tile", 4), ("global", 4), ("global", 8), ("global", 16),
    ]  # fmt: skip
    with pytest.raises(UserError, match="leaves nothing"):
        sweep(seeds=2, exclude=[{"sampler.kind": "global"}]).plan()


def test_the_same_run_is_planned_once() -> None:
    assert len(sweep(grid={"budget.acceleration": [4, 4.0, 8]}).plan()) == 2


def test_an_id_depends_on_what_is_computed_and_on_nothing_else() -> None:
    (first,) = sweep(grid={"seed": [3]}).plan()
    (renamed,) = sweep(base=BASE | {"name": "other", "trainer": {"n_devices": 2}}, seeds=[3]).plan()
    (other,) = sweep(seeds=[4]).plan()
    assert first.id == renamed.id != other.id


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"grid": {"budget.nothing": [1]}}, "unknown key budget.nothing: valid here are acceler"),
        ({"grid": {"reconstructor.n_blocks": ["x"]}}, "n_blocks is 'x': input should be"),
        ({"grid": {"seed.deeper": [1]}}, "seed is {'deeper': 1}"),
        ({"grid": {}}, "nothing varies"),
        ({"grid": {"seed": []}}, "at least 1 item"),
        ({"grid": {"seed": 3}}, "grid.seed is 3: valid is a list"),
        ({"seeds": "three"}, "seeds is 'three': valid is a number from 1 to 10000, or a list"),
        ({"search": {"n_trials": 3, "trials": 3}}, "search.trials: valid here are n_trials"),
        ({"grid": {"name": ["a", "b"]}}, "changes no result"),
        ({"grid": {"trainer.n_devices": [1, 2]}}, "changes no result"),
        ({"grid": {"seed": [1]}, "seeds": 3}, "seed varies twice"),
        (
            {"grid": {"sampler.kind": ["tile"], "sampler": [{"kind": "lines"}]}},
            "sampler.kind varies twice",
        ),
        ({"zip": [{"seed": [1, 2], "budget.acceleration": [4]}]}, "equally long"),
        ({"seeds": 0}, "seeds is 0"),
        ({"seeds": 2, "metrics": 1}, "unknown key metrics: valid here are name, base"),
        ({"seeds": 2, "search": {"n_trials": 3}}, "belong to a grid"),
        ({"search": {"n_trials": 3}}, "nothing varies"),
        ({"search": {"n_trials": 3, "ranges": {"seed": {"low": 3, "high": 1}}}}, "low < high"),
    ],
)  # fmt: skip
def test_bad_sweeps_are_told_in_one_line(tmp_path: Path, changes: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) as raised:
        loaded(tmp_path, **changes).plan()
    assert "\n" not in str(raised.value)


def test_a_base_may_lie_in_a_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE | {"compare": {"a": {"kind": "tile"}}}))
    (tmp_path / "below").mkdir()
    assert loaded(tmp_path / "below", base="../base.yaml", seeds=2) == sweep(seeds=2)
    with pytest.raises(UserError, match=r"cannot read .*nothing\.yaml"):
        loaded(tmp_path, base="nothing.yaml", seeds=2)


def test_what_is_written_is_what_was_read(tmp_path: Path) -> None:
    for changes in ({"seeds": 3}, {"grid": {"seed": [1]}, "metric": "psnr"}):
        before = sweep(**changes)
        write_sweep(before, tmp_path / "written.yaml")
        assert load_sweep(tmp_path / "written.yaml") == before


def test_differences_name_the_path() -> None:
    before, after = sweep(grid={"seed": [1]}), sweep(grid={"seed": [1, 2]}, metric="psnr")
    assert differences(before, after) == [
        "grid.seed: [1] -> [1, 2]",
        "metric: nmse_kspace -> psnr",
    ]
    assert differences(before, before) == []


SHIPPED = {
    "learned": 864,
    "fixed": 864,
    "learned_brain": 72,
    "fixed_brain": 216,
    "learned_small": 96,
    "fixed_small": 144,
}


def test_shipped_sweeps_are_what_they_say() -> None:
    folder = ROOT / "configs" / "sweeps"
    assert {path.stem for path in folder.glob("*.yaml")} == {*SHIPPED, "search"}
    found = {name: len(load_sweep(folder / f"{name}.yaml").plan()) for name in SHIPPED}
    assert found == SHIPPED
    search = load_sweep(folder / "search.yaml")
    assert len(search.corners()) > 3


def test_corners_try_every_value_and_both_ends_of_every_range() -> None:
    ranges = {"training.learning_rate": {"low": 0.001, "high": 0.01, "log": True}}
    searched = sweep(grid={"budget.acceleration": [4, 8]}, search={"n_trials": 3, "ranges": ranges})
    experiments = [run.experiment for run in searched.corners()]
    assert {e.budget.acceleration for e in experiments} == {4, 8}
    rates = sorted({e.training.learning_rate for e in experiments})
    assert rates[0] == 0.001 < rates[1] < rates[2] == 0.01


def test_a_range_of_whole_numbers_needs_steps() -> None:
    ranges: dict[str, Any] = {"reconstructor.n_blocks": {"low": 1, "high": 5}}
    with pytest.raises(UserError, match="needs step: 1"):
        sweep(search={"n_trials": 3, "ranges": ranges}).corners()
    ranges["reconstructor.n_blocks"]["step"] = 1
    assert len(sweep(search={"n_trials": 3, "ranges": ranges}).corners()) == 3
