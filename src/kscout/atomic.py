"""Files appear whole or not at all: written under a temporary name, then renamed."""

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


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # its folder cannot be reached, so it was never made
        return
