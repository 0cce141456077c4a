"""A sweep is one YAML: a base experiment, and what varies. Here it becomes a list of runs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, field_validator, model_validator

from kscout.errors import UserError
from kscout.experiment.config import (
    NOT_IDENTITY,
    STRICT,
    Experiment,
    Name,
    Trainer,
    assign,
    check,
    read_tree,
    set_paths,
)

Values = Annotated[list[Any], Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
MOST_SEEDS = 10_000
Settings = dict[str, Any]
"""Dotted path of the configuration to value."""


class Range(BaseModel):
    """Numbers that a search may choose: evenly between two bounds, in the log, or in steps."""

    model_config = STRICT

    low: float
    high: float
    log: bool = False
    step: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _possible(self) -> "Range":
        if not self.low < self.high:
            raise ValueError("valid is low < high")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("with log, valid is low > 0 and no step")
        return self

    @property
    def between(self) -> float:
        """A number between the bounds that is whole only where steps make it so."""
        value = self.low + 0.382 * (self.high - self.low)
        return (
            value
            if self.step is None
            else self.low + self.step * round((value - self.low) / self.step)
        )


class Search(BaseModel):
    """Optuna chooses ``n_trials`` runs: from the lists of the sweep, and from ranges.

    A pruner stops a run whose validation loss falls behind that of the others at its epoch.
    """

    model_config = STRICT

    n_trials: Annotated[int, Field(ge=1)]
    ranges: dict[str, Range] = {}
    sampler: Literal["tpe", "random"] = "tpe"
    pruner: Literal["none", "median", "halving"] = "median"
    seed: Seed = 0


class Sweep(BaseModel):
    """Many experiments that differ in named settings.

    Attributes
    ----------
    base : experiment that all start from: a section, or the path of a YAML file beside this one
    grid : dotted path to list of values; every combination is run
    zip : groups of such lists that go together: first with first, second with second
    seeds : every combination is repeated with each; a number n stands for 0 to n - 1
    exclude : combinations to leave out: dotted paths with a value, or a list of values, each
    search : choose some runs in place of every combination
    metric : test score that runs are ranked by
    """

    model_config = STRICT

    name: Name
    base: dict[str, Any]
    grid: dict[str, Values] = {}
    zip: list[Annotated[dict[str, Values], Field(min_length=1)]] = []
    seeds: list[Seed] = []
    exclude: list[Annotated[dict[str, Any], Field(min_length=1)]] = []
    search: Search | None = None
    metric: Literal["nmse_kspace", "nmse", "psnr", "ssim"] = "nmse_kspace"

    @field_validator("seeds", mode="before")
    @classmethod
    def _count(cls, seeds: Any) -> Any:
        is_number = type(seeds) is int and 0 < seeds <= MOST_SEEDS
        if not is_number and not isinstance(seeds, list):
            raise ValueError(f"valid is a number from 1 to {MOST_SEEDS}, or a list of seeds")
        return list(range(seeds)) if is_number else seeds

    @field_validator("zip")
    @classmethod
    def _same_lengths(cls, groups: list[dict[str, list[Any]]]) -> list[dict[str, list[Any]]]:
        for group in groups:
            lengths = {path: len(values) for path, values in group.items()}
            if len(set(lengths.values())) > 1:
                counts = ", ".join(f"{path}: {n}" for path, n in lengths.items())
                raise ValueError(f"lists that go together must be equally long ({counts})")
        return groups

    @model_validator(mode="after")
    def _varies(self) -> "Sweep":
        ranges = self.search.ranges if self.search else {}
        if self.search and (self.exclude or self.seeds):
            raise ValueError("exclude and seeds belong to a grid: valid with search is neither")
        if not (self.grid or self.zip or self.seeds or ranges):
            raise ValueError("nothing varies: valid is a grid with paths and values, zip or seeds")
        paths = [path for axis in self.axes for path in _paths_of(axis)] + [*ranges]
        twice = next((path for path in paths if paths.count(path) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} varies twice: valid is once")
        fixed = next((path for path in paths if path.split(".")[0] in NOT_IDENTITY), None)
        if fixed is not None:
            raise ValueError(f"{fixed} changes no result, so it cannot vary")
        return self

    @property
    def axes(self) -> list[list[Settings]]:
        """What varies independently, each as the settings that it takes one after another.

        The last axis runs fastest; seeds are the last.
        """
        axes = [[{path: value} for value in values] for path, values in self.grid.items()]
        for group in self.zip:
            rows = zip(*group.values(), strict=True)
            axes.append([dict(zip(group, row, strict=True)) for row in rows])
        if self.seeds:
            axes.append([{"seed": seed} for seed in self.seeds])
        return axes

    @property
    def trainer(self) -> Trainer:
        """Where all runs compute."""
        return Trainer.model_validate(self.base.get("trainer", {}))

    def planned(self, changes: Mapping[str, Any]) -> "PlannedRun":
        """The run with these changes to the base; ``UserError`` if it is no valid experiment."""
        return self._run(changes, self._changed(changes))

    def _changed(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        tree = deepcopy(self.base)
        assign(tree, changes)
        return tree

    def _run(self, changes: Mapping[str, Any], tree: dict[str, Any]) -> "PlannedRun":
        said = " ".join(f"{path}={value}" for path, value in changes.items())
        experiment = check(Experiment, tree, f"run with {said}")
        digest = experiment.digest()
        experiment = experiment.model_copy(update={"name": digest})
        return PlannedRun(digest, experiment, _leaves(changes))

    def corners(self) -> list["PlannedRun"]:
        """Runs in which every value of a list, and three of every range, is tried once.

        Raises
        ------
        UserError
            if one is no valid experiment
        """
        ranges = self.search.ranges if self.search else {}
        first = {path: value for axis in self.axes for path, value in axis[0].items()}
        first |= {path: choice.low for path, choice in ranges.items()}
        runs = [self.planned(first | settings) for axis in self.axes for settings in axis]
        for path, choice in ranges.items():
            try:
                values = (choice.low, choice.between, choice.high)
                runs += [self.planned(first | {path: value}) for value in values]
            except UserError as error:
                raise UserError(f"{error} (a range of whole numbers needs step: 1)") from error
        return list({run.id: run for run in runs}.values())

    def plan(self) -> list["PlannedRun"]:
        """Every run of the grid, in order, without those excluded; the same run never twice.

        Raises
        ------
        UserError
            if a combination is no valid experiment, or nothing is left to run
        """
        runs: dict[str, PlannedRun] = {}
        matched = [False] * len(self.exclude)
        for combination in product(*self.axes):
            changes = {path: value for part in combination for path, value in part.items()}
            tree = self._changed(changes)
            hits = [_matches(tree, rule) for rule in self.exclude]
            matched = [before or now for before, now in zip(matched, hits, strict=True)]
            if not any(hits):
                run = self._run(changes, tree)
                runs.setdefault(run.id, run)
        for rule, hit in zip(self.exclude, matched, strict=True):
            if not hit:
                raise UserError(f"exclude: no run has {rule}: drop the rule, or mend it")
        if not runs:
            raise UserError("exclude leaves nothing to run")
        return list(runs.values())


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep.

    Attributes
    ----------
    id : digest of the experiment, and name of its folder
    settings : what the sweep set, one entry for each single value
    label : what people call it, where the sweep is a part of something that has names
    """

    id: str
    experiment: Experiment
    settings: Settings
    label: str = ""


def load_sweep(path: Path, overrides: Iterable[str] = ()) -> Sweep:
    """Read a sweep's YAML, with ``key.path=value`` changes.

    ``base`` may name another file, relative to this one.

    Raises
    ------
    UserError
        one line: what is wrong, and what is valid
    """
    tree = read_tree(path, Sweep)
    base = tree.get("base")
    if isinstance(base, str):
        tree["base"] = read_tree(path.parent / base, Experiment)
    if isinstance(tree.get("base"), dict):
        tree["base"].pop("compare", None)  # a sweep compares its own runs
        tree["base"].setdefault("name", "base")  # runs have names of their own
    set_paths(tree, overrides)
    return check(Sweep, tree, str(path))


def write_sweep(sweep: Sweep, path: Path) -> None:
    """Write what :func:`load_sweep` reads, with the base written out."""
    tree = sweep.model_dump(mode="json", exclude_defaults=True)
    path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")


def differences(before: Sweep, after: Sweep) -> list[str]:
    """What changed from one sweep to another, one ``path: old -> new`` each."""
    old, new = (_leaves(sweep.model_dump(mode="json")) for sweep in (before, after))
    return [
        f"{path}: {old.get(path, 'nothing')} -> {new.get(path, 'nothing')}"
        for path in dict.fromkeys([*old, *new])
        if old.get(path) != new.get(path)
    ]


def _paths_of(axis: Sequence[Settings]) -> list[str]:
    """What an axis sets, down to single values."""
    return list(dict.fromkeys(path for settings in axis for path in _leaves(settings)))


def _leaves(tree: Mapping[str, Any], above: str = "") -> Settings:
    """Nested sections as dotted paths; lists are values."""
    leaves: Settings = {}
    for key, value in tree.items():
        path = f"{above}{key}"
        if isinstance(value, Mapping) and value:
            leaves.update(_leaves(value, f"{path}."))
        else:
            leaves[path] = value
    return leaves


def _matches(tree: Mapping[str, Any], rule: Mapping[str, Any]) -> bool:
    return all(
        any(found in _choices(wanted) for found in _at(tree, path.split(".")))
        for path, wanted in rule.items()
    )


def _choices(wanted: Any) -> Sequence[Any]:
    return wanted if isinstance(wanted, list) else [wanted]


def _at(tree: Any, keys: Sequence[str]) -> Iterator[Any]:
    """The value below ``keys``, if there is one."""
    for key in keys:
        if not isinstance(tree, Mapping) or key not in tree:
            return
        tree = tree[key]
    yield tree
