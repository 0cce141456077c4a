"""From a configuration to trained and judged acquisition policies."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import yaml
from pydantic import BaseModel, Field, field_validator
from rich.console import Console

from kscout import atomic
from kscout.acquisition.learner import Learner, fit
from kscout.acquisition.policies import Policy
from kscout.acquisition.process import Metric, Process, Units
from kscout.acquisition.registry import ENTRIES, LEARNERS, POLICIES
from kscout.atomic import atomic_path
from kscout.data import Splits
from kscout.errors import UserError
from kscout.experiment.acquire import n_initial_and_budget, processes
from kscout.experiment.config import (
    STRICT,
    DataConfig,
    Experiment,
    Name,
    ReconstructorConfig,
    Training,
    check,
    one_of,
    parse_yaml,
    read_tree,
    set_paths,
)
from kscout.experiment.folder import RunFolder
from kscout.experiment.progress import progress_bar
from kscout.experiment.run import load_splits, run_experiment

PolicyConfig: Any = one_of(ENTRIES)
Count = Annotated[int, Field(ge=1)]


class Scan(BaseModel):
    """What is acquired: :func:`kscout.experiment.acquire.processes`."""

    model_config = STRICT

    units: Literal["lines", "points", "tile"] = "lines"
    tile: tuple[Count, Count] = (4, 4)
    scenario: Literal["normal", "extreme"] | None = None
    n_initial: Annotated[int, Field(ge=0)] | None = None
    budget: Count | None = None
    metric: Metric = "nmse"


class Learning(BaseModel):
    """How every policy that learns is trained."""

    model_config = STRICT

    epochs: Count = 30
    batch_size: Count = 64
    patience: Count | None = None


class Active(BaseModel):
    """Policies on one data source, seen through one reconstructor.

    The reconstructor is trained for every number of units, or taken from the folder of a ``run``.
    """

    model_config = STRICT

    name: Name
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data: DataConfig
    scan: Scan = Scan()
    reconstructor: ReconstructorConfig
    training: Training = Training()
    run: Path | None = None
    policies: dict[Name, PolicyConfig]
    learning: Learning = Learning()

    @field_validator("policies")
    @classmethod
    def _some(cls, policies: dict[str, Any]) -> dict[str, Any]:
        if not policies:
            raise ValueError("no policy is there to be judged")
        return policies

    def learns(self, name: str) -> bool:
        return self.policies[name].kind in LEARNERS

    def trained_reconstructor(self, splits: Splits) -> Experiment:
        """The experiment that trains the reconstructor for every number of units."""
        train = splits["train"]
        units = Units.of(train.shape, self.scan.units, self.scan.tile)
        n_initial, budget = n_initial_and_budget(
            units, self.scan.units, self.scan.scenario, self.scan.n_initial, self.scan.budget
        )
        most = min(n_initial + budget, units.n - 1)  # of all there is nothing to reconstruct
        if self.scan.units == "lines":
            of_budget: dict[str, Any] = {"n_lines": most}
            of_budget |= {"acs": "lines", "acs_size": n_initial} if n_initial else {}
        else:
            share = most / units.n
            of_budget = {"n_samples": math.ceil(share * math.prod(train.shape))}
        sampler = {
            "kind": "any_number",
            "unit": "lines" if self.scan.units == "lines" else "points",
        }
        tree = {
            "name": "reconstructor",
            "seed": self.seed,
            "data": self.data,
            "budget": of_budget,
            "sampler": sampler,
            "reconstructor": self.reconstructor,
            "training": self.training,
        }
        return check(Experiment, tree, self.name)


def load_active(path: Path, overrides: list[str]) -> Active:
    """Read a YAML configuration, with ``key.path=value`` changes."""
    tree = read_tree(path, Active)
    set_paths(tree, overrides)
    return check(Active, tree, str(path))


@dataclass(frozen=True)
class ActiveFolder:
    """What is kept: ``config.yaml``, ``reconstructor/``, a folder for every policy that learns.

    And, once policies were judged, ``records.csv``, ``results.json`` and ``report.html``.
    """

    path: Path

    @property
    def reconstructor(self) -> RunFolder:
        return RunFolder(self.path / "reconstructor")

    def policy(self, name: str) -> Path:
        return self.path / "policies" / name

    def active(self) -> Active:
        """The configuration that the folder was made with."""
        path = self.path / "config.yaml"
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"{self.path} holds no policies: valid is a folder of kscout acquire train"
            ) from error
        return check(Active, parse_yaml(text, str(path)), str(path))

    def refuse_other(self, active: Active) -> None:
        """Raise ``UserError`` if the folder cannot be this configuration's; writes nothing.

        Policies may be added and dropped between calls, as each has a folder of its own.
        """
        if (self.path / "config.yaml").exists():
            before = self.active()
            same = before.policies.keys() & active.policies.keys()
            changed = [
                name
                for name in Active.model_fields
                if name != "policies" and getattr(before, name) != getattr(active, name)
            ] + [f"policies.{n}" for n in same if before.policies[n] != active.policies[n]]
            if changed:
                raise UserError(
                    f"{self.path} holds other policies ({', '.join(sorted(changed))} differ): "
                    "choose another --out, or remove that folder"
                )
        elif not atomic.is_unused(self.path):
            raise UserError(f"{self.path} is not empty and holds no policies: choose another --out")

    @contextmanager
    def claimed(self, active: Active) -> Iterator[None]:
        """Make the folder this configuration's, and keep others out until this ends."""
        self.refuse_other(active)
        self.path.mkdir(parents=True, exist_ok=True)
        busy = f"{self.path} is used by another process: wait for it, or choose another --out"
        with atomic.locked(self.path, busy):
            with atomic_path(self.path / "config.yaml") as temporary:
                tree = active.model_dump(mode="json")
                temporary.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
            yield


def train_policies(
    active: Active,
    folder: ActiveFolder,
    console: Console,
    should_stop: Callable[[], bool] | None = None,
) -> None:
    """Train the reconstructor, then every policy that learns; what is done is not done again.

    Raises
    ------
    UserError
        if the configuration is impossible or the folder is another's
    Stopped
        if ``should_stop``, asked after every epoch, said so
    """
    folder.refuse_other(active)
    splits = load_splits(active.data, console)
    reconstructor = active.trained_reconstructor(splits)
    if active.run is not None:
        scans_of(active, folder, splits)  # refuses another plane, or a run that is not finished
    with folder.claimed(active):
        if active.run is None:
            run_experiment(
                reconstructor,
                folder.reconstructor.path,
                console,
                load=lambda *_: splits,
                should_stop=should_stop,
            )
        scans = scans_of(active, folder, splits)
        learned = [name for name in active.policies if active.learns(name)]
        for i, name in enumerate(learned):
            console.print(f"[bold]{name}[/] ({i + 1} of {len(learned)})", highlight=False)
            if _checkpoint(folder, name).exists():
                continue
            learner = _learner(active, name, scans["train"])
            fit(
                learner,
                scans.get("val"),
                folder.policy(name),
                **active.learning.model_dump(),
                progress=console.is_terminal,
                should_stop=should_stop,
            )
            with atomic_path(_checkpoint(folder, name)) as temporary:
                state = {"network": learner.network.state_dict(), **_scan_of(scans["train"])}
                torch.save(state, temporary)


def scans_of(active: Active, folder: ActiveFolder, splits: Splits) -> dict[str, Process]:
    """The acquisition of every split, through the trained reconstructor."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    run = active.run or folder.reconstructor.path
    return processes(splits, **active.scan.model_dump(), reconstructor=run, device=device)


def policies_of(
    active: Active, folder: ActiveFolder, scans: dict[str, Process], split: str, console: Console
) -> dict[str, Policy]:
    """All policies, ready to be judged on a split.

    Raises
    ------
    UserError
        if one that learns has not been trained, or for another scan
    """
    found: dict[str, Policy] = {}
    for name, config in active.policies.items():
        if active.learns(name):
            learner = _learner(active, name, scans["train"])
            _load(learner, _checkpoint(folder, name))
            found[name] = learner.policy
            continue
        with progress_bar(console, name) as show:
            more: dict[str, Any] = {}
            if config.kind == "greedy_order":
                more["advance"] = lambda done, total: show("steps", done, total)
            make = POLICIES[config.kind]
            found[name] = make(
                scans["train"], scans[split], active.seed, **config.options(), **more
            )
    return found


def _learner(active: Active, name: str, process: Process) -> Learner:
    config = active.policies[name]
    learner = LEARNERS[config.kind](process, active.seed, **config.options())
    return learner.to(process.device)


def _checkpoint(folder: ActiveFolder, name: str) -> Path:
    return folder.policy(name) / "policy.ckpt"


def _scan_of(process: Process) -> dict[str, Any]:
    """What a policy was trained for."""
    return {
        "plane": list(process.data.shape),
        "units": process.units.n,
        "initial": int(process.initial.sum()),
        "budget": process.budget,
        "metric": process.metric,
    }


def _load(learner: Learner, path: Path) -> None:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        scan = {key: state[key] for key in _scan_of(learner.process)}
        network = state["network"]
    except FileNotFoundError as error:
        raise UserError(f"{path.parent.name} is not trained: kscout acquire train does") from error
    except Exception as error:  # torch raises whatever its reader meets in a broken file
        raise UserError(
            f"{path} is no checkpoint of a policy: remove it and train again"
        ) from error
    for key, valid in _scan_of(learner.process).items():
        if scan[key] != valid:
            raise UserError(f"{path} was trained for {key} {scan[key]}: valid here is {valid}")
    try:
        learner.network.load_state_dict(network)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UserError(f"{path} holds another network: remove it and train again") from error
