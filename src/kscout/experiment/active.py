"""From a configuration to trained and judged acquisition policies."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from kscout import atomic
from kscout.acquisition.process import Metric
from kscout.acquisition.registry import ENTRIES, GREEDY_ORDER, LEARNERS, STAGED, Role, role
from kscout.data import Splits
from kscout.errors import UserError
from kscout.experiment.acquire import n_initial_and_budget
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
from kscout.experiment.folder import RunFolder, check_writable, write_config
from kscout.sampling.units import UnitKind, Units

PolicyConfig: Any = one_of(ENTRIES)
Count = Annotated[int, Field(ge=1)]
CONFIG = "config.yaml"

TUNED = " tuned"
"""Behind the name of a policy that is judged through the reconstructor fine-tuned to it."""


class Scan(BaseModel):
    """What is acquired: :func:`kscout.experiment.acquire.processes`."""

    model_config = STRICT

    units: UnitKind = "lines"
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
    seeds: Annotated[Count, Field(description="trainings of each, which verdicts need")] = 3


class Finetune(BaseModel):
    """Policies whose masks copies of the reconstructor are trained with for some more epochs.

    So many epochs a staged policy has too, which is trained together with a copy.
    """

    model_config = STRICT

    policies: list[Name] = []
    epochs: Count = 10


class Active(BaseModel):
    """Policies on one data source, seen through one reconstructor.

    The reconstructor is trained for every number of units, or taken from the folder of a ``run``.
    """

    model_config = STRICT

    name: Name
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data: DataConfig
    scan: Scan = Scan()
    run: Path | None = None
    reconstructor: ReconstructorConfig | None = Field(None, validate_default=True)
    training: Training = Training()
    policies: dict[Name, PolicyConfig]
    learning: Learning = Learning()
    finetune: Finetune = Finetune()

    @field_validator("policies")
    @classmethod
    def _some(cls, policies: dict[str, Any]) -> dict[str, Any]:
        if not policies:
            raise ValueError("no policy is there to be judged")
        return policies

    @field_validator("reconstructor")
    @classmethod
    def _one(cls, reconstructor: Any, info: ValidationInfo) -> Any:
        if (reconstructor is None) == (info.data.get("run") is None):
            raise ValueError("exactly one is needed: a reconstructor to train, or a finished run")
        return reconstructor

    @field_validator("finetune")
    @classmethod
    def _known(cls, finetune: Finetune, info: ValidationInfo) -> Finetune:
        known = info.data.get("policies", {})
        valid = [
            name
            for name, config in known.items()
            if config.kind != STAGED and _role(config) in ("order", "adaptive")
        ]
        for name in finetune.policies:
            if name not in valid:
                raise ValueError(f"'{name}' cannot be: valid is {', '.join(valid)}")
            if name + TUNED in known:
                raise ValueError(f"'{name}{TUNED}' is a policy's name already: valid is another")
        return finetune

    def role(self, name: str) -> Role:
        """What a policy is, also of the name of a tuned one."""
        return _role(self.policies[name if name in self.policies else name.removesuffix(TUNED)])

    def seeds_of(self, name: str) -> list[int]:
        """Of the trainings of a policy; of what is drawn, where nothing is trained."""
        same = self.role(name) in ("order", "oracle")
        return [self.seed] if same and not self.learns(name) else self.seeds

    @property
    def seeds(self) -> list[int]:
        return [self.seed + i for i in range(self.learning.seeds)]

    def learns(self, name: str) -> bool:
        """By gradient descent, so that another seed learns something else."""
        return self.policies[name].kind in {*LEARNERS, STAGED}

    def is_trained(self, name: str) -> bool:
        """Whether it has a checkpoint."""
        return self.learns(name) or self.policies[name].kind == GREEDY_ORDER

    def joint_training(self) -> dict[str, Any]:
        """Of a trained reconstructor with a sampler: :func:`kscout.learning.joint.fit_jointly`."""
        names = ("batch_size", "learning_rate", "mask_learning_rate", "loss", "patience")
        chosen = {name: getattr(self.training, name) for name in names}
        return {"epochs": self.finetune.epochs, **chosen}

    def trained_reconstructor(self, splits: Splits) -> Experiment:
        """The experiment that trains the reconstructor for every number of units."""
        train = splits["train"]
        units = Units.of(train.shape, self.scan.units, self.scan.tile)
        n_initial, budget = n_initial_and_budget(
            units, self.scan.units, self.scan.scenario, self.scan.n_initial, self.scan.budget
        )
        most = min(n_initial + budget, units.n - 1)  # of all there is nothing to reconstruct
        n_samples = int(units.mask(units.nearest(most)[None]).sum())
        config: Any = self.reconstructor
        centre = getattr(config, "acs_size", 0)
        if centre > n_initial:
            raise UserError(
                f"reconstructor '{config.kind}' takes coil maps from the {centre}x{centre} centre: "
                f"valid with it are lines, scan.n_initial {centre} or more, or its own acs_size "
                f"of {n_initial} or less"
            )
        is_lines = self.scan.units == "lines" and n_initial
        acs = {"acs": "lines", "acs_size": n_initial} if is_lines else {}
        sampler = {
            "kind": "any_number",
            "unit": self.scan.units,
            "tile": self.scan.tile,
            "n_initial": n_initial,
        }
        tree = {
            "name": "reconstructor",
            "seed": self.seed,
            "data": self.data,
            "budget": {"n_samples": n_samples, **acs},
            "sampler": sampler,
            "reconstructor": self.reconstructor,
            "training": self.training,
        }
        return check(Experiment, tree, self.name)


def _role(config: Any) -> Role:
    return role(config.kind, config.options())


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

    def checkpoint(self, name: str, seed: int) -> Path:
        """Of a policy that learns."""
        return self.path / "policies" / name / f"seed-{seed}" / "policy.ckpt"

    def tuned(self, name: str, seed: int) -> Path:
        """Of the reconstructor that was trained further with the policy's masks."""
        return self.path / "tuned" / name / f"seed-{seed}" / "reconstructor.ckpt"

    def active(self) -> Active:
        """The configuration that the folder was made with."""
        path = self.path / CONFIG
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
        if (self.path / CONFIG).exists():
            before = self.active()
            same = before.policies.keys() & active.policies.keys()
            changed = [
                name
                for name in Active.model_fields
                if name != "policies" and getattr(before, name) != getattr(active, name)
            ] + [f"policies.{n}" for n in same if before.policies[n] != active.policies[n]]
            if changed:
                raise UserError(
                    f"{self.path} is of another configuration ({', '.join(sorted(changed))} differ "
                    f"from its {CONFIG}): choose another --out, or remove that folder"
                )
        elif not atomic.is_unused(self.path):
            raise UserError(f"{self.path} is not empty and holds no policies: choose another --out")
        check_writable(self.path)

    @contextmanager
    def claimed(self, active: Active) -> Iterator[None]:
        """Make the folder this configuration's, and keep others out until this ends."""
        self.refuse_other(active)
        self.path.mkdir(parents=True, exist_ok=True)
        busy = f"{self.path} is used by another process: wait for it, or choose another --out"
        with atomic.locked(self.path, busy):
            write_config(self.path, active)
            yield
