"""The sweep folder: everything that is known of a sweep, in files that no crash can garble.

``sweep.yaml`` what was asked for, base included; ``launch.json`` where it was last run; ``runs/ID``
the run folders; ``attempts/ID/N.json`` the N-th try of a run, ``N.ended.json`` how it ended and
``N.stop`` that it was asked to; ``trials/N.json`` what a search chose; ``logs/ID.log`` what all
tries of a run printed; ``slurm/`` the files of SLURM jobs.
"""

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from kscout import atomic
from kscout.atomic import atomic_path
from kscout.errors import UserError
from kscout.experiment.folder import RunFolder
from kscout.sweep import causes
from kscout.sweep.launch import Launch
from kscout.sweep.spec import (
    PlannedRun,
    Settings,
    Sweep,
    differences,
    load_sweep,
    write_sweep,
)

Model = TypeVar("Model", bound=BaseModel)


class Attempt(BaseModel):
    """One try of a run, as it was handed out.

    Attributes
    ----------
    number : from 1 on
    where : ``local``, or ``slurm``
    array, place : name of SLURM's array, known before it is submitted, and place in it, if any
    job : SLURM's id, with the place in the array
    memory_mb : limit for the process, where there is one
    micro_batch : slices at a time in place of the whole batch, where memory was short
    minutes : time limit, where there is one
    epochs : that the run had behind it before
    """

    number: int
    where: str
    array: str | None = None
    place: int | None = None
    job: str | None = None
    memory_mb: int | None = None
    micro_batch: int | None = None
    minutes: float | None = None
    epochs: int = 0


class Ended(BaseModel):
    """How a try ended without a result.

    Attributes
    ----------
    cause : one of :mod:`kscout.sweep.causes`
    error : last lines of the traceback
    epochs : that the run had behind it then
    """

    cause: str | None = None
    error: str = ""
    seconds: float = 0.0
    epochs: int = 0


@dataclass(frozen=True)
class SweepFolder:
    """A sweep's files; see the module."""

    path: Path

    def run(self, run_id: str) -> RunFolder:
        return RunFolder(self.path / "runs" / run_id)

    def log(self, run_id: str) -> Path:
        return self.path / "logs" / f"{run_id}.log"

    @property
    def slurm(self) -> Path:
        return self.path / "slurm"

    def sweep(self) -> Sweep:
        """The sweep that the folder was made for."""
        if not (self.path / "sweep.yaml").is_file():
            raise UserError(f"{self.path} is not a sweep folder: it has no sweep.yaml")
        return load_sweep(self.path / "sweep.yaml")

    def refuse_other(self, sweep: Sweep) -> None:
        """Raise ``UserError``, saying what changed, if the folder is another sweep's.

        A sweep may grow: one that still has every run that it had before is the same.
        """
        if not (self.path / "sweep.yaml").exists():
            if not atomic.is_unused(self.path):
                raise UserError(
                    f"{self.path} is not empty and holds no sweep: choose another --out"
                )
            return
        before = self.sweep()
        changed = differences(before, sweep)
        if not changed or _has_grown(before, sweep):
            return
        said = "; ".join(changed[:3]) + (f"; {len(changed) - 3} more" if len(changed) > 3 else "")
        new = next(p for i in range(2, 10**6) if not (p := Path(f"{self.path}-{i}")).exists())
        raise UserError(
            f"{self.path} holds another sweep ({said}): undo the change, or choose a new folder "
            f"with --out {new}"
        )

    def claim(self, sweep: Sweep) -> None:
        """Make the folder this sweep's, or raise ``UserError`` as :meth:`refuse_other`."""
        self.refuse_other(sweep)
        with atomic_path(self.path / "sweep.yaml") as temporary:
            write_sweep(sweep, temporary)

    def planned(self) -> list[PlannedRun]:
        """Every run of the sweep: of its grid, or those that its search has chosen so far."""
        sweep = self.sweep()
        if sweep.search is None:
            return sweep.plan()
        runs = (sweep.planned(changes) for changes in self.trials().values())
        return list({run.id: run for run in runs}.values())

    def trials(self) -> dict[int, Settings]:
        """What a search has chosen, by number of the trial."""
        files = {int(p.stem): p for p in (self.path / "trials").glob("*.json") if p.stem.isdigit()}
        return {number: json.loads(files[number].read_text("utf-8")) for number in sorted(files)}

    def add_trial(self, number: int, changes: Settings) -> None:
        """Write down what a search has chosen."""
        self._write(self.path / "trials" / f"{number}.json", changes)

    def launch(self) -> Launch:
        """How the sweep was last run."""
        path = self.path / "launch.json"
        return _read(Launch, path) if path.exists() else Launch()

    def keep_launch(self, launch: Launch) -> None:
        self._write(self.path / "launch.json", launch.model_dump(exclude={"errors_too"}))

    @property
    def cancel_marker(self) -> Path:
        """Its presence tells a coordinator on this machine, or another, to stop."""
        return self.path / "cancel"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only coordinator of this sweep; ``UserError`` if there is one."""
        busy = f"{self.path} is being run by another process: look at it with kscout sweep status"
        with atomic.locked(self.path, busy):
            yield

    @property
    def is_locked(self) -> bool:
        return atomic.is_locked(self.path)

    def attempts(self, run_id: str) -> list[Attempt]:
        """All tries of a run, first to last; one whose file is damaged is as if never made."""
        folder, found = self.path / "attempts" / run_id, []
        for number in sorted(int(p.stem) for p in folder.glob("*.json") if p.stem.isdigit()):
            with suppress(UserError):
                found.append(_read(Attempt, folder / f"{number}.json"))
        return found

    def add_attempt(self, run_id: str, attempt: Attempt) -> None:
        """Write down a try before it begins."""
        self._write(self._attempt(run_id, attempt.number, "json"), attempt.model_dump())

    def forget_attempt(self, run_id: str, number: int) -> None:
        """Take back a try that SLURM refused."""
        self._attempt(run_id, number, "json").unlink(missing_ok=True)

    def ended(self, run_id: str, number: int) -> Ended | None:
        """How a try ended; ``None`` while nobody has said."""
        path = self._attempt(run_id, number, "ended.json")
        try:
            return _read(Ended, path) if path.exists() else None
        except UserError as error:
            return Ended(cause=causes.KILLED, error=str(error))

    def end(self, run_id: str, number: int, ended: Ended) -> Ended:
        """Write down how a try ended, with the epochs that the run has behind it now."""
        epochs = epochs_done(self.run(run_id).path)
        ended = ended.model_copy(update={"epochs": epochs})
        self._write(self._attempt(run_id, number, "ended.json"), ended.model_dump())
        return ended

    def ask_to_stop(self, run_id: str, number: int, cause: str) -> None:
        """Have a try end after its epoch, for the cause given."""
        self._write(self._attempt(run_id, number, "stop"), cause)

    def asked_to_stop(self, run_id: str, number: int) -> str | None:
        """The cause for which a try was asked to stop."""
        path = self._attempt(run_id, number, "stop")
        return json.loads(path.read_text()) if path.exists() else None

    def _attempt(self, run_id: str, number: int, suffix: str) -> Path:
        return self.path / "attempts" / run_id / f"{number}.{suffix}"

    @staticmethod
    def _write(path: Path, content: Any) -> None:
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")


def _has_grown(before: Sweep, after: Sweep) -> bool:
    if before.search is not None and after.search is not None:
        more = before.search.model_copy(update={"n_trials": after.search.n_trials})
        grown = before.model_copy(update={"search": more})
        return after == grown and after.search.n_trials > before.search.n_trials
    if before.search is not None or after.search is not None:
        return False
    return {run.id for run in before.plan()} <= {run.id for run in after.plan()}


def epochs_done(run: Path) -> int:
    """How many epochs of gradient descent a run has behind it."""
    return len(_log(run))


def validation_losses(run: Path) -> list[float]:
    """One for each epoch; none where the run has no validation data."""
    return [float(row["val_loss"]) for row in _log(run) if row.get("val_loss")]


def _log(run: Path) -> list[dict[str, str]]:
    try:
        return list(csv.DictReader((run / "metrics.csv").read_text("utf-8").splitlines()))
    except OSError:
        return []


def _read(model: type[Model], path: Path) -> Model:
    try:
        return model.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise UserError(f"{path} is damaged: remove it, nothing else depends on it") from error
