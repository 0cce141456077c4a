"""Which acquisitions of an ISMRMRD file make the scan, and whether any is missing."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kscout.data.formats.mrd_header import Encoding
from kscout.data.formats.mrd_records import COUNTERS, Records
from kscout.errors import UserError

NOISE, CALIBRATION, CALIBRATION_AND_IMAGING, REVERSE = 19, 20, 21, 22
_NEITHER = {
    23: "navigator",
    24: "phase correction",
    26: "feedback",
    27: "dummy",
    28: "feedback",
    29: "surface coil correction",
    30: "phase stabilization",
    31: "phase stabilization",
}
"""Flags of acquisitions that are no part of an image, by number."""

_FEW = 16
"""Nobody accelerates by leaving out one line in more than so many: then it was lost."""


@dataclass(frozen=True)
class Chosen:
    """The acquisitions of one image of every slice.

    Attributes
    ----------
    number : of the encoding
    imaging : numbers of the acquisitions
    calibration : numbers of those that calibrate alone, and are used where no other is
    slices : of the file, in order
    notes : what was left out
    """

    number: int
    imaging: np.ndarray
    calibration: np.ndarray
    slices: list[int]
    notes: list[str]

    def apart(self, records: Records) -> tuple["Chosen", "Chosen"]:
        """Without what only calibrates, and that alone."""
        nothing = self.calibration[:0]
        slices = np.unique(records.heads["slice"][self.calibration]).tolist()
        return (
            replace(self, calibration=nothing),
            replace(self, imaging=self.calibration, calibration=nothing, slices=slices, notes=[]),
        )


def choose(
    path: Path,
    records: Records,
    encodings: list[Encoding],
    encoding: int | None,
    wanted: Mapping[str, int | None],
) -> Chosen:
    """Leave what makes one image of every slice.

    Parameters
    ----------
    encoding : its number, where the file has several
    wanted : contrast, repetition, set and phase; None for the first

    Raises
    ------
    UserError
        if there are no acquisitions, or several encodings of which none was chosen
    """
    notes = []
    rest = ~records.is_flagged(NOISE)
    for name in sorted(set(_NEITHER.values())):
        flagged = rest & records.is_flagged(*(f for f, said in _NEITHER.items() if said == name))
        if flagged.any():
            notes.append(f"{int(flagged.sum())} acquisitions skipped: {name}")
            rest &= ~flagged
    alone = rest & records.is_flagged(CALIBRATION) & ~records.is_flagged(CALIBRATION_AND_IMAGING)
    imaging = np.flatnonzero(rest & ~alone)
    calibration = np.flatnonzero(alone)
    if not len(imaging):
        raise UserError(f"{path}: has no acquisition of an image among its {len(records)}")
    number = _encoding(path, records, encodings, imaging, encoding)
    of_space = records.heads["encoding_space_ref"]
    elsewhere = calibration[of_space[calibration] != number]
    if len(elsewhere):
        of = ", ".join(map(str, np.unique(of_space[elsewhere])))
        notes.append(f"{len(elsewhere)} calibration lines are not used: they are of encoding {of}")
    imaging, calibration = (found[of_space[found] == number] for found in (imaging, calibration))
    for counter in COUNTERS:
        imaging, said = _one(path, records, imaging, counter, wanted[counter])
        notes += said
        calibration = _same(records, imaging, calibration, counter)
    slices = np.unique(records.heads["slice"][imaging]).tolist()
    return Chosen(number, imaging, calibration, slices, notes)


def _encoding(
    path: Path,
    records: Records,
    encodings: list[Encoding],
    imaging: np.ndarray,
    wanted: int | None,
) -> int:
    used = np.unique(records.heads["encoding_space_ref"][imaging]).tolist()
    if used[-1] >= len(encodings):
        raise UserError(
            f"{path}: an acquisition is of encoding {used[-1]}, and the header has {len(encodings)}"
        )
    listed = "; ".join(f"{number}: {encodings[number]}" for number in used)
    if wanted is None and len(used) > 1:
        raise UserError(f"{path}: has several encodings: choose one with encoding=N ({listed})")
    if wanted is not None and wanted not in used:
        raise UserError(f"{path}: has no acquisitions of encoding {wanted}: valid is {listed}")
    return int(used[0] if wanted is None else wanted)


def _one(
    path: Path, records: Records, numbers: np.ndarray, counter: str, wanted: int | None
) -> tuple[np.ndarray, list[str]]:
    values = records.heads[counter][numbers]
    there = np.unique(values).tolist()
    if wanted is not None and wanted not in there:
        valid = ", ".join(map(str, there[:20]))
        raise UserError(f"{path}: has no {counter} {wanted}: valid is {valid}")
    value = there[0] if wanted is None else wanted
    notes = []
    if len(there) > 1:
        notes.append(f"{len(there)} {counter}s: {value} is read ({counter}=N takes another)")
    return numbers[values == value], notes


def _same(
    records: Records, imaging: np.ndarray, calibration: np.ndarray, counter: str
) -> np.ndarray:
    """Calibration of the chosen image; the first there is where it was acquired once for all."""
    if not len(calibration):
        return calibration
    values, value = records.heads[counter][calibration], records.heads[counter][imaging[0]]
    return calibration[values == (value if (values == value).any() else values.min())]


def what_is_missing(lines: dict[int, np.ndarray], acceleration: tuple[int, int] | None) -> str:
    """Which acquisition was lost, in words; nothing if none was.

    One is where another slice has it, or where it stands alone between others: few are missing,
    their neighbours (as far away as the header's acceleration says) are all there, and but for them
    there is no hole. A random pattern has such places among many holes, and is let be.

    Parameters
    ----------
    lines : of every slice, how often each step was acquired, ``(step 1, step 2)``
    acceleration : of both phase encodings, if the header says
    """
    union = np.any([counts > 0 for counts in lines.values()], 0)
    for number, counts in lines.items():
        lost = np.argwhere(union & (counts == 0))
        if len(lost):
            more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
            return f"slice {number} lacks {_step(lost[0], union)}{more}, which another slice has"
    alone, factors = ~union, acceleration or (1, 1)
    for axis, factor in enumerate(factors):
        if union.shape[axis] > 1:
            for shift in (factor, -factor):
                alone &= _shifted(union, shift, axis)
    lost = np.argwhere(alone)
    if 0 < len(lost) <= union.sum() // _FEW and not _has_holes(union | alone, factors):
        return f"{_step(lost[0], union)} is missing: its neighbours were acquired"
    return ""


def _has_holes(grid: np.ndarray, factors: tuple[int, int]) -> bool:
    """Whether points that are a factor apart, along either axis, begin more than once."""
    for axis, factor in enumerate(factors):
        along = np.moveaxis(grid, axis, 0)
        for first in range(min(factor, len(along))):
            every = np.pad(along[first::factor], ((1, 0), (0, 0)))
            if ((every[1:] & ~every[:-1]).sum(0) > 1).any():
                return True
    return False


def _shifted(grid: np.ndarray, by: int, axis: int) -> np.ndarray:
    """``grid`` moved along an axis; False comes in from outside."""
    moved = np.roll(grid, by, axis)
    edge = [slice(None), slice(None)]
    edge[axis] = slice(None, by) if by > 0 else slice(by, None)
    moved[tuple(edge)] = False
    return moved


def _step(place: np.ndarray, grid: np.ndarray) -> str:
    line, partition = (int(n) for n in place)
    return f"line {line}" + (f", partition {partition}" if grid.shape[1] > 1 else "")
