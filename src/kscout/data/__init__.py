"""Where slices of k-space come from: one entry per source."""

from collections.abc import Callable

from kscout.data import brain, digits, files, knees, volume
from kscout.data.slices import KspaceSet, Splits, check_splits

DATA: dict[str, Callable[..., Splits]] = {
    "digits": digits.digits,
    "brain": brain.brain,
    "files": files.files,
    "volume": volume.volume,
    "knees": knees.knees,
}

__all__ = ["DATA", "KspaceSet", "Splits", "check_splits"]
