"""Files appear whole or not at all, and a folder is worked in by one process at a time."""

import errno
import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from kscout.errors import StorageError, UserError

PARTIAL = ".partial-"
GLANCES, GLANCE = 10, 0.02
"""Tries at a lock, which :func:`is_locked` takes for a moment, and the seconds between them."""


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary name beside ``path``; renamed to ``path`` when the block ends well.

    A block that raises, or is interrupted, leaves an older file at ``path`` as it was and nothing
    else behind; a process that is killed may leave a part for :func:`remove_partials`. Missing
    parent folders are made. The temporary name keeps the suffix, because many writers choose the
    format by it or add one.

    Raises
    ------
    StorageError
        if ``path`` cannot be written
    """
    path = Path(path)
    temporary = path.with_name(f"{PARTIAL}{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {_reason(error)}") from error
    finally:
        _remove(temporary)


def _reason(error: OSError) -> str:
    """In words, of libraries that tell numbers too."""
    reason = error.strerror or str(error).split(" (", 1)[0]
    advice = {errno.EISDIR: "choose another name", errno.ENOSPC: "free some space"}
    return f"{reason}: {advice.get(error.errno or 0, 'choose a writable folder')}"


def remove_partials(folder: Path) -> None:
    """Remove what killed processes have left half written, anywhere below a folder."""
    for path in folder.rglob(f"{PARTIAL}*"):
        _remove(path)


def set_aside(path: Path) -> Path:
    """Rename what cannot be read to ``NAME.damaged``, in place of an earlier one; returns that."""
    aside = path.with_name(f"{path.name}.damaged")
    if aside.is_dir():
        shutil.rmtree(aside)
    return path.replace(aside)


def is_unused(folder: Path) -> bool:
    """Whether nothing but locks and parts, which are hidden, is in a folder, if there is one."""
    return not folder.is_dir() or all(entry.name[0] == "." for entry in folder.iterdir())


@contextmanager
def locked(folder: Path, busy: str) -> Iterator[None]:
    """Hold ``folder/.lock`` until the block ends, or the process does, however it does.

    Raises
    ------
    UserError
        saying ``busy`` if another process holds it
    StorageError
        if the folder cannot be written, or cannot be locked
    """
    path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _take(path)
    except OSError as error:
        raise StorageError(f"cannot write {folder}: {error.strerror}") from error
    if file is None:
        raise UserError(busy)
    with file:
        yield
        path.unlink(missing_ok=True)


def _take(path: Path) -> IO[str] | None:
    """The lock file, locked; ``None`` if it stays somebody else's for longer than a glance."""
    for _ in range(GLANCES):
        file = path.open("w")
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between opening and locking, its holder may have ended and removed this very file.
            if _is_the_file(path, file.fileno()):
                return file
        file.close()
        time.sleep(GLANCE)
    return None


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
