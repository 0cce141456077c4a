"""Magnitude images of knees made into multi-coil scans."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from kscout.data.arrays import read_npy
from kscout.data.phase import with_phase
from kscout.data.simulate import Coils, CoilTurn, Matrix, NCoils, Phase, Scanner, SnrDb, Subject
from kscout.data.slices import Geometry, Splits
from kscout.errors import UserError

_NOISE, _PHASE = range(2)
"""What a random stream is for: equal seeds must not mean equal numbers."""


def knees(
    *,
    path: Annotated[
        Path, Field(description=".npy of magnitudes (subject, y, x), one slice of each subject")
    ],
    n_val: Annotated[int, Field(ge=0, description="subjects")] = 2,
    n_test: Annotated[int, Field(ge=1, description="subjects; all others are trained on")] = 5,
    n_coils: NCoils = 8,
    coils: Coils = "birdcage",
    matrix: Matrix = None,
    phase: Phase = 1.0,
    snr_db: SnrDb = None,
    split_seed: Annotated[int, Field(ge=0, description="of the split")] = 0,
    noise_seed: Annotated[int, Field(ge=0, description="of the noise")] = 123,
    phase_seed: Annotated[int, Field(ge=0, description="of the phase")] = 123,
    test_coil_turn: CoilTurn = None,
) -> Splits:
    """Real anatomy in simulated coils: one slice of each subject, who is a scan of its own.

    **Numbers on this source flatter every method.** Magnitude images have been through a pipeline:
    coils combined, noise turned into a floor of magnitudes that is now part of the object, phase
    thrown away, perhaps filtered or interpolated. k-space computed from them hides what measured
    k-space has, and a method that scores well here need not do so there (Shimron et al. 2022, PNAS
    119:e2117203119, "Implicit data crimes"). Compare methods on it with each other, and with
    nothing that was measured.

    Coils, ``matrix``, ``phase``, noise and scales are those of :func:`kscout.data.brain.brain`. The
    phase and noise of a subject depend on its place in the file, not on the split.

    Returns
    -------
    ``train``, ``val``, ``test`` and, when asked for, ``test_coils``; with ``snr_db`` the target is
    free of that noise

    Raises
    ------
    UserError
        if the file is missing or holds anything but magnitudes, too few subjects are left to train
        on, or the matrix is larger than the plane
    """
    images = _read_magnitudes(path)
    n, y, x = images.shape
    if n_val + n_test >= n:
        raise UserError(
            f"knees: n_val {n_val} and n_test {n_test} leave none of the {n} subjects in {path} to "
            f"train on: valid is {n - 1} at most, together"
        )
    scanner = Scanner((y, x, 1), range(1), coils, n_coils, matrix, snr_db, Geometry())
    order = np.random.default_rng(split_seed).permutation(n).tolist()
    numbers = {
        "train": sorted(order[n_test + n_val :]),
        "val": sorted(order[n_test : n_test + n_val]),
        "test": sorted(order[:n_test]),
    }

    def subject(number: int) -> Subject:
        noise, turns = (
            np.random.SeedSequence(seed, spawn_key=(purpose, number))
            for purpose, seed in ((_NOISE, noise_seed), (_PHASE, phase_seed))
        )
        return Subject(
            partial(with_phase, images[number][None], phase, torch.zeros(1), turns), noise
        )

    return scanner.scan(
        {name: [subject(number) for number in part] for name, part in numbers.items()},
        test_coil_turn,
    )


def _read_magnitudes(path: Path) -> Tensor:
    """float32 ``(subject, y, x)``, none of them black."""
    if not path.exists():
        raise UserError(
            f"{path}: no such file: the 3D FSE knees of mridata.org will do, as magnitudes "
            "(subject, y, x) in a .npy file"
        )
    with np.errstate(over="ignore"):
        images = torch.from_numpy(read_npy(path, _complaint).astype(np.float32))
    if not torch.isfinite(images).all():
        raise UserError(f"{path}: holds NaN or infinity")
    if images.min() < 0:
        raise UserError(f"{path}: holds negative values: magnitudes are needed")
    black = torch.nonzero(images.amax((1, 2)) == 0).flatten().tolist()
    if black:
        raise UserError(f"{path}: subject {black[0]} holds nothing but zeros")
    return images


def _complaint(shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    if dtype.kind not in "fiu":
        return f"its dtype is {dtype}: magnitudes are real numbers"
    if len(shape) != 3:
        return f"its shape is {shape}: valid is (subject, y, x)"
    return ""
