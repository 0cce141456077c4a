"""The run folder: the contract between fitting, reporting and applying.

``config.yaml`` what was asked for; ``status.json`` how far it has come; ``metrics.csv`` and
``training/`` while gradient descent runs; and, of a finished run, ``mask.npy``,
``checkpoint.ckpt``, ``records.csv``, ``examples.npz``, ``results.json`` and, where the mask was
learned, ``mask_history.npy``. The samplers compared with it are run folders of their own below
``compare/``. Every file is written under a temporary name and renamed.
"""

import csv
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from pydantic import BaseModel
from torch import Tensor

from kscout import atomic
from kscout.atomic import atomic_path
from kscout.errors import StorageError, UserError
from kscout.experiment.config import Experiment, check, parse_yaml
from kscout.sampling.files import read_mask

STATES = ("running", "finished", "interrupted", "failed")


def check_writable(path: Path) -> None:
    """Raise ``StorageError`` unless a folder can be made, or written to, there."""
    parent = next(folder for folder in (path, *path.parents) if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise StorageError(
            f"cannot write {path}: {parent} is not a writable folder: choose another --out"
        )


def write_config(path: Path, config: BaseModel) -> None:
    """Write ``config.yaml`` into a folder."""
    with atomic_path(path / "config.yaml") as temporary:
        tree = config.model_dump(mode="json")
        temporary.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")


@dataclass(frozen=True)
class RunFolder:
    """One run's files.

    Attributes
    ----------
    path : of the folder; made when first written to
    """

    path: Path

    def compared(self, name: str) -> "RunFolder":
        """The folder of a sampler that is compared with this run."""
        return RunFolder(self.path / "compare" / name)

    @property
    def state(self) -> str | None:
        """One of :data:`STATES`; ``None`` for a new folder, or one whose files are damaged."""
        path = self.path / "status.json"
        with suppress(OSError, ValueError, AttributeError, RecursionError, UserError):
            state = json.loads(path.read_text(encoding="utf-8")).get("state")
            if state == "finished":
                self.results()
            return state if state in STATES else None
        return None

    def set_state(self, state: str, error: str | None = None) -> None:
        """Write ``status.json``."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.write_json("status.json", {"state": state, "since": now, "error": error})

    def refuse_other(self, experiment: Experiment) -> None:
        """Raise ``UserError`` if the folder cannot be this experiment's; writes nothing.

        What is compared may change between calls, as it lies in folders of its own; and so may
        the trainer, which decides where to compute.
        """
        try:
            is_run = (self.path / "config.yaml").exists()
        except OSError as error:
            raise StorageError(f"cannot write {self.path}: {error.strerror}") from error
        if is_run:
            before = self.experiment()
            changed = [
                name
                for name in Experiment.model_fields
                if name not in ("compare", "trainer")
                and getattr(before, name) != getattr(experiment, name)
            ]
            if changed:
                raise UserError(
                    f"{self.path} holds another experiment ({', '.join(changed)} differ): "
                    "choose another --out, or remove that folder"
                )
        elif not atomic.is_unused(self.path):
            raise UserError(f"{self.path} is not empty and holds no run: choose another --out")
        check_writable(self.path)

    def claim(self, experiment: Experiment) -> None:
        """Make the folder this experiment's, or raise ``UserError`` as :meth:`refuse_other`."""
        self.refuse_other(experiment)
        write_config(self.path, experiment)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from running here; ``UserError`` if one does. Ends with it."""
        busy = f"{self.path} is being run by another process: wait for it, or choose another --out"
        with atomic.locked(self.path, busy):
            yield

    @property
    def is_locked(self) -> bool:
        """Whether a living process runs here."""
        return atomic.is_locked(self.path)

    def experiment(self) -> Experiment:
        """The configuration that the folder was made with."""
        path = self.path / "config.yaml"
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{self.path} is not a run folder: no readable config.yaml") from error
        return check(Experiment, parse_yaml(text, str(path)), str(path))

    def results(self) -> dict[str, Any]:
        """``results.json`` of a finished run."""
        path = self.path / "results.json"
        try:
            loaded = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(
                f"{self.path} is not a finished run: no readable results.json"
            ) from error
        if not isinstance(loaded, dict):
            raise UserError(f"{path} is not a run's results")
        return loaded

    def mask(self) -> Tensor:
        """The final mask, bool ``(ky, kx)``."""
        return read_mask(self.path / "mask.npy")

    def checkpoint(self) -> dict[str, Any]:
        """State of the fitted reconstructor, and the scale of the coils that it was fitted on.

        And the state of a sampler that gives every slice its mask, where that is what was trained.
        """
        path = self.path / "checkpoint.ckpt"
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
            state, scale = loaded["reconstructor"], loaded["coil_scale"]
            sampler = {"sampler": loaded["sampler"]} if "sampler" in loaded else {}
            is_valid = scale.ndim == 1 and scale.is_floating_point() and bool((scale > 0).all())
            if is_valid and isinstance(state, dict):
                return {"reconstructor": state, "coil_scale": scale} | sampler
        except Exception as error:  # torch raises whatever its reader meets in a broken file
            raise UserError(f"{path} is not a readable checkpoint") from error
        raise UserError(f"{path} is not the checkpoint of a run")

    def write_json(self, name: str, content: Any) -> None:
        with atomic_path(self.path / name) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def write_array(self, name: str, array: Tensor) -> None:
        with atomic_path(self.path / name) as temporary:
            np.save(temporary, array.cpu().numpy(), allow_pickle=False)

    def write_arrays(self, name: str, **arrays: Tensor) -> None:
        with atomic_path(self.path / name) as temporary:
            contents: dict[str, Any] = {key: array.cpu().numpy() for key, array in arrays.items()}
            np.savez_compressed(temporary, **contents)

    def write_checkpoint(self, **state: Any) -> None:
        with atomic_path(self.path / "checkpoint.ckpt") as temporary:
            torch.save(state, temporary)

    def write_table(self, name: str, rows: Sequence[dict[str, Any]]) -> None:
        with (
            atomic_path(self.path / name) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
