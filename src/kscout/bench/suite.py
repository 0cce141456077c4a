"""A suite is one YAML: what is compared with what. Here it becomes two sweeps."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, field_validator

from kscout.errors import UserError
from kscout.experiment.config import (
    SEARCHES,
    STRICT,
    BudgetConfig,
    DataConfig,
    Experiment,
    Name,
    ReconstructorConfig,
    SamplerConfig,
    Training,
    assign,
    check,
    read_tree,
    set_paths,
)
from kscout.sampling import LEARNED_SAMPLERS
from kscout.sweep.spec import PlannedRun, Seed, Sweep

LEAST_SEEDS, MOST_SEEDS = 3, 100
Trials = Annotated[list[SamplerConfig], Field(min_length=1)]
Tree = dict[str, Any]


class Reconstruction(BaseModel):
    """A reconstructor, and what of the suite's training is different for it."""

    model_config = STRICT

    reconstructor: ReconstructorConfig
    training: Training = Training()


class Suite(BaseModel):
    """Masks by reconstructors by seeds, on one data set at one budget.

    Attributes
    ----------
    question : what the suite asks, in a line
    obtain : how to get the data, said where it is missing
    metric : error whose differences are taken in dB, and that trials are chosen by
    seeds : 3 or more; a number n stands for 0 to n - 1
    masks : of each method the settings tried; the best on validation data is the one tested
    reconstructors : each is fitted to every mask
    training : of all reconstructors, unless they say otherwise
    certificate : whether the gap of every mask to the bound for any mask is worked out
    """

    model_config = STRICT

    name: Name
    question: Annotated[str, Field(min_length=1)]
    data: DataConfig
    obtain: str = ""
    budget: BudgetConfig
    metric: Literal["nmse_kspace", "nmse"] = "nmse"
    seeds: list[Seed]
    masks: dict[Name, Trials]
    reconstructors: Annotated[dict[Name, Reconstruction], Field(min_length=1)]
    training: Training = Training()
    certificate: bool = True

    @field_validator("seeds", mode="before")
    @classmethod
    def _count(cls, seeds: Any) -> Any:
        valid = f"valid is a number from {LEAST_SEEDS} to {MOST_SEEDS}, or a list of as many seeds"
        counted = list(range(min(seeds, MOST_SEEDS + 1))) if type(seeds) is int else seeds
        if not isinstance(counted, list) or len(counted) > MOST_SEEDS:
            raise ValueError(valid)
        whole = [seed for seed in counted if type(seed) is int]  # what else there is, is refused
        twice = next((seed for seed in whole if whole.count(seed) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} stands twice; {valid}, all different")
        if len(counted) < LEAST_SEEDS:
            raise ValueError(f"so few say nothing about others; {valid}")
        return counted

    @field_validator("masks")
    @classmethod
    def _has_a_baseline(cls, masks: dict[str, list[Any]]) -> dict[str, list[Any]]:
        for name, trials in masks.items():
            if len({is_learned(trial) for trial in trials}) > 1:
                raise ValueError(f"'{name}' mixes fixed and learned masks: valid is one of them")
        n_fixed = sum(not is_learned(trials[0]) for trials in masks.values())
        if len(masks) < 2 or not n_fixed:
            raise ValueError(
                f"the methods are {', '.join(masks) or 'none'}, {n_fixed} of them fixed: valid are "
                "two or more methods, a fixed mask among them"
            )
        return masks

    def learned(self, method: str) -> bool:
        return is_learned(self.masks[method][0])

    @property
    def n_trials(self) -> int:
        """Of every method, once the audit has passed."""
        return len(next(iter(self.masks.values())))

    def training_of(self, reconstruction: str) -> Training:
        """The suite's training with what the reconstructor says otherwise."""
        own = self.reconstructors[reconstruction].training
        changes = {name: getattr(own, name) for name in own.model_fields_set}
        return self.training.model_copy(update=changes)

    def settings(self, reconstruction: str, method: str, trial: int) -> Tree:
        """What a run of the sweep is given beyond the base, but for its seed."""
        settings = {
            "reconstructor": self.reconstructors[reconstruction].reconstructor,
            "training": self.training_of(reconstruction),
            "sampler": self.masks[method][trial],
        }
        return {
            name: options.model_dump(mode="json", exclude_unset=True)
            for name, options in settings.items()
        }

    def planned(self, reconstruction: str, method: str, trial: int, seed: int) -> PlannedRun:
        """One run, the same as in the sweeps."""
        settings = self.settings(reconstruction, method, trial)
        return self._sweep("one", [settings], [seed]).plan()[0]

    def experiment(self, reconstruction: str, method: str, trial: int, seed: int) -> Experiment:
        return self.planned(reconstruction, method, trial, seed).experiment

    def tuning(self) -> Sweep:
        """Every trial of every method with every reconstructor, at the first seed."""
        rows = [
            self.settings(reconstruction, method, trial)
            for reconstruction in self.reconstructors
            for method, trials in self.masks.items()
            for trial in range(len(trials))
        ]
        return self._sweep("tuning", rows, self.seeds[:1])

    def final(self, chosen: Mapping[tuple[str, str], int]) -> Sweep:
        """The chosen trials at the other seeds.

        Parameters
        ----------
        chosen : (reconstruction, method) to trial
        """
        rows = [self.settings(*pair, trial) for pair, trial in chosen.items()]
        return self._sweep("final", rows, self.seeds[1:])

    def _sweep(self, part: str, rows: Sequence[Tree], seeds: Sequence[int]) -> Sweep:
        base = {
            "name": "base",
            "data": self.data.model_dump(mode="json"),
            "budget": self.budget.model_dump(mode="json", exclude_none=True),
        }
        together = {key: [row[key] for row in rows] for key in rows[0]}
        tree = {"name": f"{self.name} {part}"[:80], "base": base, "zip": [together]}
        return check(Sweep, {**tree, "seeds": list(seeds), "metric": self.metric}, self.name)


def is_learned(sampler: Any) -> bool:
    """Whether a sampler's configuration is of one that looks at the data."""
    return sampler.kind in LEARNED_SAMPLERS or sampler.kind in SEARCHES


def load_suite(path: Path, overrides: Iterable[str] = ()) -> Suite:
    """Read a suite's YAML, with ``key.path=value`` changes.

    A file may start from another one: ``base`` names it, relative to this one, and every other key,
    a dotted path too, is a change.

    Raises
    ------
    UserError
        one line: what is wrong, and what is valid
    """
    tree = _read(path)
    set_paths(tree, overrides)
    try:
        return check(Suite, tree, str(path))
    except UserError as error:
        if str(error).endswith("data.path is missing"):
            raise with_hint(error, tree.get("obtain")) from error
        raise


def with_hint(error: UserError, obtain: object) -> UserError:
    """What is said of missing data, with how to get it unless the data source has said so."""
    said = str(error)
    return UserError(f"{said}: {obtain}" if obtain and str(obtain) not in said else said)


def _read(path: Path, above: tuple[Path, ...] = ()) -> Tree:
    """A suite's tree, with what it does not say itself from its base, and from that one's."""
    if path.resolve() in above:
        raise UserError(f"{path}: base leads back to it: valid is another suite")
    tree = read_tree(path, Suite)
    base = tree.pop("base", None)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise UserError(f"{path}: base is {base!r}: valid is the path of a suite beside this one")
    whole = _read(path.parent / base, (*above, path.resolve()))
    assign(whole, tree)
    return whole


def write_suite(suite: Suite, path: Path) -> None:
    """Write what :func:`load_suite` reads."""
    tree = suite.model_dump(mode="json", exclude_unset=True)
    path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
