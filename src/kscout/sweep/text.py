"""How the values of settings, their paths, and times are written."""

from collections.abc import Mapping, Sequence
from typing import Any

NONE = "none"
"""A setting that a run does not have, or that is null."""


def written(value: Any) -> str:
    """A setting as a YAML would have it, a section in brackets."""
    if value is None or isinstance(value, bool):
        return {None: NONE, True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "(" + " ".join(f"{key}={written(inner)}" for key, inner in value.items()) + ")"
    return f"{value:g}" if isinstance(value, float) else str(value)


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Each path's last parts, as many as tell it from the others."""
    parts = {path: path.split(".") for path in paths}
    names = {}
    for path, own in parts.items():
        others = [part for other, part in parts.items() if other != path]
        n = next(
            (n for n in range(1, len(own)) if all(own[-n:] != other[-n:] for other in others)),
            len(own),
        )
        names[path] = ".".join(own[-n:])
    return names


def duration(seconds: float) -> str:
    """``3.5 h``, in the largest unit that there are two of."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
