"""Simulated multi-coil brains: tissue maps, random contrasts, random heads, random phase."""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from kscout.data.anatomy import SHAPE, Anatomy, deform, icbm152, spm_tpm
from kscout.data.phase import with_phase
from kscout.data.simulate import Coils, CoilTurn, Matrix, NCoils, Phase, Scanner, SnrDb, Subject
from kscout.data.slices import Geometry, Splits
from kscout.errors import UserError

_CONTRAST, _ANATOMY, _NOISE, _PHASE = range(4)
"""What a random stream is for: equal seeds must not mean equal numbers."""

_IMAGE_NOISE_STD = math.sqrt(1e-3)

_Seeds = tuple[int, int, int, int]
"""In the order of the purposes above."""


@dataclass(frozen=True)
class _Head:
    """All that is random in one scan. Seeds, not generators, so that a scan can be made twice."""

    contrast: np.ndarray
    anatomy: np.random.SeedSequence
    noise: np.random.SeedSequence
    phase: np.random.SeedSequence
    image_noise: int | None


def brain(
    *,
    source: Annotated[
        Literal["icbm152", "spm_tpm"],
        Field(description="tissue maps; spm_tpm follows the original study's recipe"),
    ] = "icbm152",
    tpm: Annotated[
        Path | None, Field(description="SPM's TPM.nii, or an .npz of it, for spm_tpm")
    ] = None,
    n_train: Annotated[int, Field(ge=1, description="volumes")] = 24,
    n_val: Annotated[
        int | None,
        Field(
            ge=0, description="volumes; else 3, or none for spm_tpm, which takes them from train"
        ),
    ] = None,
    n_test: Annotated[int, Field(ge=1, description="volumes")] = 6,
    n_coils: NCoils = 8,
    coils: Coils = "dipole",
    slices: Annotated[
        tuple[int, int], Field(description="first of the third axis' 121, and one past the last")
    ] = (50, 90),
    matrix: Matrix = None,
    phase: Phase = 0.0,
    contrast_seed: Annotated[int, Field(ge=0, description="of the tissues' brightness")] = 123,
    noise_seed: Annotated[int, Field(ge=0, description="of the noise")] = 123,
    anatomy_seed: Annotated[int, Field(ge=0, description="of the deformations")] = 123,
    phase_seed: Annotated[int, Field(ge=0, description="of the phase")] = 123,
    deformation: Annotated[
        float | None,
        Field(ge=0, le=15, description="rms per axis in mm; else 3, or 0 for spm_tpm"),
    ] = None,
    snr_db: SnrDb = None,
    test_coil_turn: CoilTurn = None,
) -> Splits:
    """Brains with 8 (or other) coils on a plane of 121x145, one random contrast per volume.

    ``icbm152``: every volume has its own contrast, deformation, phase and noise, drawn from seeds
    that no other volume shares; the test volumes do not depend on how many train. ``spm_tpm``:
    contrasts and image noise are drawn for train and test together, as the original study did, so
    that its numbers can be compared. Each volume is divided by its largest modulus in k-space, then
    each coil by its largest real or imaginary part over the training set (``coil_scale``).

    With a ``matrix`` k-space is cropped around DC, a scan of lower resolution over the same field
    of view; noise is drawn and scaled after that. The ``phase`` is a cubic in all three directions
    (:func:`kscout.data.phase.with_phase`): without it the head is real, and methods that know so
    are flattered.

    Returns
    -------
    ``train``, ``val``, ``test`` and, when asked for, ``test_coils``; with ``snr_db`` the target is
    free of that noise

    Raises
    ------
    UserError
        if the slices are outside the volume, the matrix is larger than the plane, the tissue maps
        cannot be had, or ``n_val`` leaves nothing to train on
    """
    if not 0 <= slices[0] < slices[1] <= SHAPE[2]:
        raise UserError(
            f"brain: slices {slices[0]} to {slices[1]} are impossible: valid is 0 <= first < last "
            f"<= {SHAPE[2]}"
        )
    seeds = (contrast_seed, anatomy_seed, noise_seed, phase_seed)
    if source == "icbm152":
        if tpm is not None:
            raise UserError("brain: tpm is for source 'spm_tpm', but source is 'icbm152'")
        anatomy = icbm152()
        n_volumes = {"train": n_train, "val": 3 if n_val is None else n_val, "test": n_test}
        heads = _drawn_apart(n_volumes, len(anatomy.classes), seeds)
    else:
        anatomy = spm_tpm(tpm)
        heads = _drawn_together(n_train, n_val or 0, n_test, seeds)
    if deformation is None:
        deformation = 3.0 if source == "icbm152" else 0.0
    x, y, z = anatomy.voxel_size
    scanner = Scanner(SHAPE, range(*slices), coils, n_coils, matrix, snr_db, Geometry((x, y), 1, z))
    model = _Model(anatomy, scanner.slices, deformation, phase)
    subjects = {
        name: [Subject(partial(model.image, head), head.noise) for head in part]
        for name, part in heads.items()
    }
    return scanner.scan(subjects, test_coil_turn)


def _drawn_apart(
    n_volumes: dict[str, int], n_classes: int, seeds: _Seeds
) -> dict[str, list[_Head]]:
    """Heads whose streams depend on their split and place in it, and on nothing else."""

    def head(*key: int) -> _Head:
        contrast, anatomy, noise, phase = (
            np.random.SeedSequence(seed, spawn_key=(purpose, *key))
            for purpose, seed in enumerate(seeds)
        )
        uniform = np.random.default_rng(contrast).random(n_classes)
        return _Head(np.round(20 - 20 * uniform, 1), anatomy, noise, phase, None)

    return {
        name: [head(split, i) for i in range(n)]
        for split, (name, n) in enumerate(n_volumes.items())
    }


def _drawn_together(n_train: int, n_val: int, n_test: int, seeds: _Seeds) -> dict[str, list[_Head]]:
    """Heads of the original study: its legacy generators, and validation taken from train."""
    if n_val >= n_train:
        raise UserError(
            f"brain: n_val {n_val} leaves nothing of n_train {n_train} with source 'spm_tpm': "
            f"valid is 0 to {n_train - 1}"
        )
    contrast_seed, anatomy_seed, noise_seed, phase_seed = seeds
    n_volumes = n_train + n_test
    if n_volumes > 1000:
        raise UserError("brain: source 'spm_tpm' has 1000 volumes at most, train and test together")
    contrasts = np.round(20 - 20 * np.random.RandomState(contrast_seed).rand(n_volumes, 6), 1)
    contrasts[:, [3, 5]] = 0  # bone and air give no signal
    image_noise = np.random.RandomState(noise_seed).choice(1000, n_volumes, replace=False)
    drawn = [
        _Head(
            contrasts[i],
            np.random.SeedSequence(anatomy_seed, spawn_key=(_ANATOMY, i)),
            np.random.SeedSequence(noise_seed, spawn_key=(_NOISE, i)),
            np.random.SeedSequence(phase_seed, spawn_key=(_PHASE, i)),
            int(image_noise[i]),
        )
        for i in range(n_volumes)
    ]
    n_left = n_train - n_val
    return {"train": drawn[:n_left], "val": drawn[n_left:n_train], "test": drawn[n_train:]}


@dataclass(frozen=True)
class _Model:
    """What makes a head of its numbers."""

    anatomy: Anatomy
    slices: range
    deformation: float
    phase: float

    def image(self, head: _Head) -> Tensor:
        """float32, or complex64 where there is a phase, ``(slice, n0, n1)``, before the coils."""
        contrast = torch.from_numpy(head.contrast).float()
        first, last = self.slices.start, self.slices.stop
        if self.deformation > 0:
            whole = torch.tensordot(contrast, self.anatomy.classes, 1)
            rng = np.random.default_rng(head.anatomy)
            image = deform(whole, self.anatomy.voxel_size, self.deformation, rng, self.slices)
        else:
            image = torch.tensordot(contrast, self.anatomy.classes[..., first:last], 1)
        self._refuse_empty(image, float(contrast.max()))
        if head.image_noise is not None:
            noise = np.random.RandomState(head.image_noise).standard_normal(SHAPE)
            image = image + _IMAGE_NOISE_STD * torch.from_numpy(noise[..., first:last]).float()
        position = torch.linspace(-1, 1, SHAPE[2])[first:last]
        return with_phase(image.permute(2, 0, 1), self.phase, position, head.phase)

    def _refuse_empty(self, image: Tensor, brightest: float) -> None:
        """A slice without signal has no error to measure."""
        empty = torch.nonzero(image.amax((0, 1)) <= 1e-3 * brightest).flatten().tolist()
        if empty:
            raise UserError(
                f"brain: slice {self.slices[empty[0]]} holds no head: valid is up to about 100"
            )
