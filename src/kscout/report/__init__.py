"""The report on finished runs. This file reads run folders; the others draw what was read.

Nothing here imports a model: a run folder is all that a report knows.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, TypeVar

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, Field, PositiveFloat, PositiveInt, ValidationError

from kscout.data.arrays import Complaint, read_npy, read_npz
from kscout.errors import UserError

FINISHED = "finished"
"""The state, in a run's ``status.json``, of a run that may be reported."""

KINDS = {"b": "bool", "f": "float", "i": "int", "u": "unsigned int"}

Array = NDArray[Any]
Model = TypeVar("Model", bound=BaseModel)


class Interval(BaseModel):
    """A mean with its interval."""

    mean: float
    low: float
    high: float


class Status(BaseModel):
    """``status.json``: how far a run has come."""

    state: str
    error: str | None = None


class Results(BaseModel):
    """``results.json``: what a finished run found."""

    name: str
    sampler: dict[str, Any]
    reconstructor: dict[str, Any]
    learned: bool
    shape: tuple[PositiveInt, PositiveInt]
    n_samples: PositiveInt
    n_acs: Annotated[int, Field(ge=0)]
    acceleration: PositiveFloat
    seconds: float
    voxel_size: tuple[PositiveFloat, PositiveFloat]
    quarter_turns: int
    volumes: Literal["scan", "block"] = "scan"
    summary: dict[str, dict[str, Interval | int]]

    def interval(self, split: str, metric: str) -> Interval | None:
        """A metric on a split; None where the run was not scored on it."""
        value = self.summary.get(split, {}).get(metric)
        return value if isinstance(value, Interval) else None


class Example(TypedDict):
    """One slice of ``examples.npz``: float images ``(y, x)`` and where they come from."""

    reference: Array
    reconstruction: Array
    zero_filled: Array
    volume: int
    slice: int


@dataclass(frozen=True)
class Run:
    """A run folder.

    Attributes
    ----------
    path : the folder
    root : the run it was compared in; ``path`` itself for a run that the user named
    label : name of the method, unique within a report
    state : from ``status.json``
    results : None unless the run is finished
    """

    path: Path
    root: Path
    label: str
    state: str
    results: Results | None

    def mask(self) -> Array:
        """bool ``(ky, kx)``."""
        return read_npy(self.path / "mask.npy", _refuse_unless("b", self._shape))

    def mask_history(self) -> Array | None:
        """bool ``(epoch, ky, kx)``, the initial mask first; None for masks that never change."""
        if not self._has("mask_history.npy"):
            return None
        return read_npy(self.path / "mask_history.npy", _refuse_unless("b", (None, *self._shape)))

    def losses(self) -> dict[str, Array] | None:
        """``train_loss`` and ``val_loss``, each float ``(epoch, 2)``: epoch and value."""
        if not self._has("metrics.csv"):
            return None
        path = self.path / "metrics.csv"
        curves: dict[str, list[tuple[float, float]]] = {"train_loss": [], "val_loss": []}
        try:
            for row in csv.DictReader(_read(path).decode("utf-8").splitlines()):
                for name, curve in curves.items():
                    if row[name]:
                        curve.append((float(row["epoch"]), float(row[name])))
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise UserError(
                f"{path} is not a log of losses (columns epoch, train_loss, val_loss): {error}"
            ) from error
        return {name: np.array(curve).reshape(-1, 2) for name, curve in curves.items()}

    def examples(self) -> list[Example]:
        """The slices kept for pictures; empty where there are none."""
        if not self._has("examples.npz"):
            return []
        path = self.path / "examples.npz"
        volumes = read_npz(path, ("volume",), _refuse_unless("iu", (None,)))
        n = len(volumes)
        slices = read_npz(path, ("slice",), _refuse_unless("iu", (n,)))
        are_images = _refuse_unless("f", (n, *self._shape))
        reference, reconstruction, zero_filled = (
            read_npz(path, (name,), are_images)
            for name in ("reference", "reconstruction", "zero_filled")
        )
        return [
            Example(
                reference=reference[i],
                reconstruction=reconstruction[i],
                zero_filled=zero_filled[i],
                volume=int(volumes[i]),
                slice=int(slices[i]),
            )
            for i in range(n)
        ]

    def config(self) -> tuple[str, dict[str, Any]]:
        """``config.yaml`` as written, and as read."""
        path = self.path / "config.yaml"
        text = _read(path).decode("utf-8", errors="replace")
        try:
            settings = yaml.safe_load(text)
        except yaml.YAMLError as error:
            said = getattr(error, "problem", None) or " ".join(str(error).split())
            raise UserError(f"{path} is not YAML: {said}") from error
        if not isinstance(settings, dict):
            raise UserError(f"{path} is not a configuration: valid is a mapping of settings")
        return text, settings

    def _has(self, name: str) -> bool:
        return (self.path / name).exists()

    @property
    def _shape(self) -> tuple[int, int]:
        assert self.results is not None
        return self.results.shape


def load_runs(paths: Sequence[Path]) -> list[Run]:
    """The named runs, each followed by the runs that it was compared with (``compare/*``).

    Parameters
    ----------
    paths : run folders

    Raises
    ------
    UserError
        if a folder is no run or its ``status.json`` or ``results.json`` cannot be read
    """
    if not paths:
        raise UserError("a report needs at least one run folder: none given")
    runs: dict[Path, Run] = {}
    for root in paths:
        for path in (root, *_compared(root)):
            runs.setdefault(path.resolve(), _load_run(path, root))
    return list(_unique_labels(list(runs.values())))


def _compared(root: Path) -> list[Path]:
    folder = root / "compare"
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")


def _load_run(path: Path, root: Path) -> Run:
    if not (path / "status.json").is_file():
        raise UserError(f"{path} is not a run folder: it has no status.json")
    status = _parse(Status, path / "status.json")
    finished = status.state == FINISHED and (path / "results.json").is_file()
    results = _parse(Results, path / "results.json") if finished else None
    label = results.name if results else path.resolve().name
    return Run(path, root, label, status.state, results)


def _unique_labels(runs: Sequence[Run]) -> Iterator[Run]:
    labels = [run.label for run in runs]
    for run in runs:
        twice = labels.count(run.label) > 1
        yield replace(run, label=f"{run.label} ({run.root.resolve().name})") if twice else run


def _parse(model: type[Model], path: Path) -> Model:
    try:
        return model.model_validate_json(_read(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: {where + ': ' if where else ''}{first['msg']}") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def _refuse_unless(kinds: str, valid: tuple[int | None, ...]) -> Complaint:
    """Of arrays with another dtype than NumPy's ``kinds``, or shape; None is any length."""

    def complaint(shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
        fits = len(shape) == len(valid) and all(
            n in (None, found) for n, found in zip(valid, shape, strict=True)
        )
        if fits and dtype.kind in kinds:
            return ""
        lengths = ", ".join("any" if n is None else str(n) for n in valid)
        names = " or ".join(KINDS[kind] for kind in kinds)
        return f"is {dtype} {shape}: valid is {names} ({lengths})"

    return complaint
