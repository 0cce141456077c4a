"""A suite's folder: ``suite.yaml``, its two sweeps, ``swapped/`` and all records in one table."""

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from kscout import atomic
from kscout.atomic import atomic_path
from kscout.bench.suite import Suite, load_suite, write_suite
from kscout.errors import UserError
from kscout.evaluation import METRICS, Record
from kscout.experiment import Experiment, RunFolder
from kscout.sampling import LEARNED_SAMPLERS
from kscout.sweep.folder import SweepFolder
from kscout.sweep.spec import Sweep

WHERE = ("split", "volume", "slice")
"""Columns of a record that say which slice it is of."""

Chosen = Mapping[tuple[str, str], int]
"""(reconstruction, method) to the trial that is tested."""


@dataclass(frozen=True)
class BenchRun:
    """One run of a suite: which cell of the matrix it fills, and where it is."""

    reconstruction: str
    method: str
    trial: int
    seed: int
    experiment: Experiment = field(compare=False)
    folder: RunFolder

    @property
    def name(self) -> str:
        """As people call it."""
        return f"{self.method} with {self.reconstruction}, trial {self.trial + 1}, seed {self.seed}"

    @property
    def label(self) -> str:
        """As an error names it."""
        return (
            f"method '{self.method}' with '{self.reconstruction}', trial {self.trial + 1}, "
            f"seed {self.seed} ({self.folder.path})"
        )

    @property
    def is_adaptive(self) -> bool:
        """Whether every slice has a mask of its own: ``mask.npy`` is then one that none has."""
        kind = self.experiment.sampler.kind
        return kind in LEARNED_SAMPLERS and LEARNED_SAMPLERS[kind].adaptive

    def records(self) -> list[Record]:
        """``records.csv``; ``UserError`` if it cannot be read."""
        path = self.folder.path / "records.csv"
        try:
            with path.open(newline="", encoding="utf-8") as file:
                records = [_record(row) for row in csv.DictReader(file, strict=True)]
            if not records:  # a finished run has some; or its one line was taken for the header
                raise ValueError("no record")
            return records
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            raise UserError(f"{path} is damaged") from error

    def damaged(self) -> list[str]:
        """Files that a finished run must have and that cannot be read."""
        run, found = self.folder, []
        readers = {
            "config.yaml": run.experiment,
            "results.json": run.results,
            "records.csv": self.records,
            "mask.npy": run.mask,
            "checkpoint.ckpt": run.checkpoint,
        }
        for name, read in readers.items():
            try:
                read()
            except UserError:
                if run.state == "finished" or (run.path / name).exists():
                    found.append(name)
        return found


def _record(row: Mapping[str, str]) -> Record:
    where = {"split": row["split"], "volume": int(row["volume"]), "slice": int(row["slice"])}
    return where | {name: float(row[name]) for name in METRICS}


@dataclass(frozen=True)
class BenchFolder:
    """A suite's files; see the module."""

    path: Path

    @property
    def tuning(self) -> SweepFolder:
        return SweepFolder(self.path / "tuning")

    @property
    def final(self) -> SweepFolder:
        return SweepFolder(self.path / "final")

    @contextmanager
    def locked(self) -> Iterator[None]:
        busy = f"{self.path} is being run by another process: wait for it, or choose another --out"
        with atomic.locked(self.path, busy):
            yield

    def claim(self, suite: Suite) -> None:
        """Make the folder this suite's; it may grow by methods, reconstructors and seeds.

        Raises
        ------
        UserError
            if it is another suite's, saying what differs
        """
        kept = self.path / "suite.yaml"
        if kept.exists():
            before = self._before(kept)
            changed = [] if before is None else _changed(before, suite)
            try:
                if (self.tuning.path / "sweep.yaml").exists():
                    self.tuning.refuse_other(suite.tuning())
            except UserError as error:
                raise self._of_another(changed) from error
        elif not atomic.is_unused(self.path):
            raise UserError(f"{self.path} is not empty and holds no suite: choose another --out")
        with atomic_path(kept) as temporary:
            write_suite(suite, temporary)

    def _before(self, kept: Path) -> Suite | None:
        with suppress(UserError):  # damaged: the sweeps know what they are
            return load_suite(kept)
        return None

    def _of_another(self, changed: Sequence[str]) -> UserError:
        new = next(p for i in range(2, 10**6) if not (p := Path(f"{self.path}-{i}")).exists())
        return UserError(
            f"{self.path} holds another suite ({', '.join(changed) or 'something'} changed): undo "
            f"the change, or choose a new folder with --out {new}"
        )

    def refuse_other_final(self, plan: Sweep) -> None:
        """Raise ``UserError`` if other trials were chosen before than now."""
        if (self.final.path / "sweep.yaml").exists():
            self.final.sweep()  # a damaged one says so
        try:
            self.final.refuse_other(plan)
        except UserError as error:
            raise self._of_another(["the choice of trials, or fewer seeds,"]) from error

    def tuning_runs(self, suite: Suite) -> list[BenchRun]:
        """Every trial at the first seed, in the order of the sweep."""
        return [
            self._run(suite, self.tuning, reconstruction, method, trial, suite.seeds[0])
            for reconstruction in suite.reconstructors
            for method, trials in suite.masks.items()
            for trial in range(len(trials))
        ]

    def tested_runs(self, suite: Suite, chosen: Chosen) -> list[BenchRun]:
        """The chosen trial of every pair at every seed, the first seed's being the tuning run."""
        return [
            self._run(suite, self.final if i else self.tuning, *pair, trial, seed)
            for pair, trial in chosen.items()
            for i, seed in enumerate(suite.seeds)
        ]

    @staticmethod
    def _run(
        suite: Suite, sweep: SweepFolder, reconstruction: str, method: str, trial: int, seed: int
    ) -> BenchRun:
        planned = suite.planned(reconstruction, method, trial, seed)
        run = sweep.run(planned.id)
        return BenchRun(reconstruction, method, trial, seed, planned.experiment, run)

    def cell(self, key: str) -> Path:
        """Of the table of swapped masks."""
        return self.path / "swapped" / f"{key}.json"


def _changed(before: Suite, after: Suite) -> list[str]:
    names = Suite.model_fields
    return [name for name in names if getattr(before, name) != getattr(after, name)]


def set_damaged_aside(runs: Sequence[BenchRun], console: Console) -> bool:
    """Have runs whose files cannot be read be done again, and say so; whether there were any."""
    found = False
    for run in runs:
        damaged = run.damaged()
        if "config.yaml" in damaged:  # without it nobody knows whose the other files are
            set_aside(run.folder.path, console)
        elif damaged:
            for name in damaged:
                set_aside(run.folder.path / name, console)
            run.folder.set_state("interrupted", f"{', '.join(damaged)} damaged")
        found |= bool(damaged)
    return found


def set_aside(path: Path, console: Console) -> None:
    """Rename what is damaged, and say that what it held is worked out again."""
    if path.exists():
        said = f"{path} is damaged: kept as {atomic.set_aside(path).name}, and worked out again"
    else:
        said = f"{path} is gone: worked out again"
    console.print(said, style="yellow", soft_wrap=True, highlight=False)


def read_json(path: Path, console: Console) -> Any:
    """What a file of this package holds; ``None`` if there is none, or a damaged one set aside."""
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
    except (OSError, ValueError, RecursionError):
        pass
    set_aside(path, console)
    return None


def write_json(path: Path, content: Any) -> None:
    """Strict JSON, whole or not at all."""
    with atomic_path(path) as temporary:
        text = json.dumps(strict(content), indent=1, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def strict(content: Any) -> Any:
    """The same with ``None`` for numbers that JSON does not know."""
    if isinstance(content, Mapping):
        return {str(key): strict(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [strict(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def write_records(runs: Sequence[BenchRun], path: Path) -> None:
    """Every record of every tested run, with the cell of the matrix that it belongs to."""
    with (
        atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        heads = ("reconstructor", "method", "trial", "seed")
        writer = csv.DictWriter(file, fieldnames=[*heads, *WHERE, *METRICS])
        writer.writeheader()
        for run in runs:
            cell = (run.reconstruction, run.method, run.trial + 1, run.seed)
            head = dict(zip(heads, cell, strict=True))
            writer.writerows(head | record for record in run.records())


def finished(runs: Sequence[BenchRun]) -> bool:
    return all(run.folder.state == "finished" for run in runs)
