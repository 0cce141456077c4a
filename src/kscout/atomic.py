"""Files appear whole or not at all, and a folder is worked in by one process at a time."""

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kscout.errors import UserError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary name beside ``path``; renamed to ``path`` when the block ends well.

    A block that raises, or is interrupted, leaves an older file at ``path`` as it was and nothing
    else behind. Missing parent folders are made. The temporary name keeps the suffix, because many
    writers choose the format by it or add one.

    Raises
    ------
    UserError
        if ``path`` cannot be written
    """
    path = Path(path)
    temporary = path.with_name(f".partial-{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot write {path}: {reason}: choose a writable folder") from error
    finally:
        _remove(temporary)


@contextmanager
def locked(folder: Path, busy: str) -> Iterator[None]:
    """Hold ``folder/.lock`` until the block ends, or the process does, however it does.

    Raises
    ------
    UserError
        saying ``busy`` if another process holds it; or if the folder cannot be written
    """
    path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(busy) from error
        # Between opening and locking, its holder may have ended and removed this very file.
        if not _is_the_file(path, file.fileno()):
            raise UserError(busy)
        yield
        path.unlink(missing_ok=True)


def is_locked(folder: Path) -> bool:
    """Whether a living process holds :func:`locked`; ``False`` where there is no such folder."""
    try:
        with (folder / ".lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _is_the_file(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # its folder cannot be reached, so it was never made
        return
