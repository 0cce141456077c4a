"""Simulated multi-coil brains: tissue maps, random contrasts, random heads, coils, noise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from kscout.data.anatomy import SHAPE, Anatomy, deform, icbm152, spm_tpm
from kscout.data.slices import KspaceSet, Splits, check_splits
from kscout.errors import UserError
from kscout.physics.coils import birdcage_coils, dipole_coils
from kscout.physics.fourier import image_to_kspace
from kscout.physics.noise import add_noise, noise_std

Coils = Literal["dipole", "birdcage"]

_CONTRAST, _ANATOMY, _NOISE = range(3)
"""What a random stream is for: equal seeds must not mean equal numbers."""

_IMAGE_NOISE_STD = math.sqrt(1e-3)

_BLOCK = 8
"""Slices simulated at once."""


@dataclass(frozen=True)
class _Subject:
    """All that is random in one scan. Seeds, not generators, so that a scan can be made twice."""

    contrast: np.ndarray
    anatomy: np.random.SeedSequence
    noise: np.random.SeedSequence
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
    n_coils: Annotated[int, Field(ge=1, description="coils around the head")] = 8,
    coils: Annotated[Coils, Field(description="model of the coils")] = "dipole",
    slices: Annotated[
        tuple[int, int], Field(description="first of the third axis' 121, and one past the last")
    ] = (50, 90),
    contrast_seed: Annotated[int, Field(ge=0, description="of the tissues' brightness")] = 123,
    noise_seed: Annotated[int, Field(ge=0, description="of the noise")] = 123,
    anatomy_seed: Annotated[int, Field(ge=0, description="of the deformations")] = 123,
    deformation: Annotated[
        float | None,
        Field(ge=0, le=15, description="rms per axis in mm; else 3, or 0 for spm_tpm"),
    ] = None,
    snr_db: Annotated[
        float | None, Field(allow_inf_nan=False, description="of noise added to k-space; else none")
    ] = None,
    test_coil_turn: Annotated[
        float | None,
        Field(allow_inf_nan=False, description="adds test_coils: test, coils turned by degrees"),
    ] = None,
) -> Splits:
    """Brains with 8 (or other) coils on a plane of 121x145, one random contrast per volume.

    ``icbm152``: every volume has its own contrast, deformation and noise, drawn from seeds that no
    other volume shares; the test volumes do not depend on how many train. ``spm_tpm``: contrasts
    and image noise are drawn for train and test together, as the original study did, so that its
    numbers can be compared. Each volume is divided by its largest modulus in k-space, then each
    coil by its largest real or imaginary part over the training set (``coil_scale``).

    Returns
    -------
    ``train``, ``val``, ``test`` and, when asked for, ``test_coils``; with ``snr_db`` the target is
    free of that noise

    Raises
    ------
    UserError
        if the slices are outside the volume, the tissue maps cannot be had, or ``n_val`` leaves
        nothing to train on
    """
    if not 0 <= slices[0] < slices[1] <= SHAPE[2]:
        raise UserError(
            f"brain: slices {slices[0]} to {slices[1]} are impossible: valid is 0 <= first < last "
            f"<= {SHAPE[2]}"
        )
    seeds = (contrast_seed, anatomy_seed, noise_seed)
    if source == "icbm152":
        if tpm is not None:
            raise UserError("brain: tpm is for source 'spm_tpm', but source is 'icbm152'")
        anatomy = icbm152()
        n_volumes = {"train": n_train, "val": 3 if n_val is None else n_val, "test": n_test}
        subjects = _drawn_apart(n_volumes, len(anatomy.classes), seeds)
    else:
        anatomy = spm_tpm(tpm)
        subjects = _drawn_together(n_train, n_val or 0, n_test, seeds)
    if deformation is None:
        deformation = 3.0 if source == "icbm152" else 0.0
    scanner = _Scanner(anatomy, range(*slices), deformation, snr_db)
    maps = _coil_maps(coils, n_coils, scanner.slices, 0.0)
    parts = {}
    first_volume = 0
    for name, part in subjects.items():
        parts[name] = scanner.scan(part, maps, first_volume)
        first_volume += len(part)
    if test_coil_turn is not None:
        turned = _coil_maps(coils, n_coils, scanner.slices, math.radians(test_coil_turn))
        parts["test_coils"] = scanner.scan(subjects["test"], turned, first_volume)
    parts_of_coils = torch.view_as_real(parts["train"].kspace)
    scale = 1 / torch.maximum(parts_of_coils.amax((0, 2, 3, 4)), -parts_of_coils.amin((0, 2, 3, 4)))
    return check_splits({name: _scale_coils(part, scale) for name, part in parts.items()})


def _drawn_apart(
    n_volumes: dict[str, int], n_classes: int, seeds: tuple[int, int, int]
) -> dict[str, list[_Subject]]:
    """Subjects whose streams depend on their split and place in it, and on nothing else."""

    def subject(*key: int) -> _Subject:
        contrast, anatomy, noise = (
            np.random.SeedSequence(seed, spawn_key=(purpose, *key))
            for purpose, seed in enumerate(seeds)
        )
        uniform = np.random.default_rng(contrast).random(n_classes)
        return _Subject(np.round(20 - 20 * uniform, 1), anatomy, noise, None)

    return {
        name: [subject(split, i) for i in range(n)]
        for split, (name, n) in enumerate(n_volumes.items())
    }


def _drawn_together(
    n_train: int, n_val: int, n_test: int, seeds: tuple[int, int, int]
) -> dict[str, list[_Subject]]:
    """Subjects of the original study: its legacy generators, and validation taken from train."""
    if n_val >= n_train:
        raise UserError(
            f"brain: n_val {n_val} leaves nothing of n_train {n_train} with source 'spm_tpm': "
            f"valid is 0 to {n_train - 1}"
        )
    contrast_seed, anatomy_seed, noise_seed = seeds
    n_volumes = n_train + n_test
    if n_volumes > 1000:
        raise UserError("brain: source 'spm_tpm' has 1000 volumes at most, train and test together")
    contrasts = np.round(20 - 20 * np.random.RandomState(contrast_seed).rand(n_volumes, 6), 1)
    contrasts[:, [3, 5]] = 0  # bone and air give no signal
    image_noise = np.random.RandomState(noise_seed).choice(1000, n_volumes, replace=False)
    drawn = [
        _Subject(
            contrasts[i],
            np.random.SeedSequence(anatomy_seed, spawn_key=(_ANATOMY, i)),
            np.random.SeedSequence(noise_seed, spawn_key=(_NOISE, i)),
            int(image_noise[i]),
        )
        for i in range(n_volumes)
    ]
    n_left = n_train - n_val
    return {"train": drawn[:n_left], "val": drawn[n_left:n_train], "test": drawn[n_train:]}


def _coil_maps(coils: Coils, n_coils: int, slices: range, turn: float) -> Tensor:
    """complex64 ``(slice, coil, n0, n1)``."""
    if coils == "birdcage":
        maps = birdcage_coils(SHAPE[:2], n_coils, turn=turn)
        return maps.expand(len(slices), -1, -1, -1)
    return dipole_coils(SHAPE, n_coils, slices=slices, turn=turn)


@dataclass(frozen=True)
class _Scanner:
    anatomy: Anatomy
    slices: range
    deformation: float
    snr_db: float | None

    def scan(self, subjects: Sequence[_Subject], maps: Tensor, first_volume: int) -> KspaceSet:
        """Slices of all ``subjects``, each volume divided by its largest modulus."""
        n, n_slices = len(subjects), len(self.slices)
        target = torch.empty((n * n_slices, *maps.shape[1:]), dtype=torch.complex64)
        kspace = target if self.snr_db is None else torch.empty_like(target)
        for i, subject in enumerate(subjects):
            rows = slice(i * n_slices, (i + 1) * n_slices)
            self._scan_volume(subject, maps, target[rows], kspace[rows])
        x, y, z = self.anatomy.voxel_size
        return KspaceSet(
            kspace=kspace,
            target=target,
            volume=torch.arange(first_volume, first_volume + n).repeat_interleave(n_slices),
            coil_scale=torch.ones(maps.shape[1]),
            voxel_size=(x, y),
            quarter_turns=1,
            slice_thickness=z,
        )

    def _scan_volume(self, subject: _Subject, maps: Tensor, target: Tensor, kspace: Tensor) -> None:
        """Fill ``target`` and ``kspace``, in blocks of slices that fit the processor's cache."""
        blocks = [
            tensor.split(_BLOCK) for tensor in (self.image(subject)[:, None], maps, target, kspace)
        ]
        for images, coils, clean, _ in zip(*blocks, strict=True):
            clean[:] = image_to_kspace(images * coils)
        if self.snr_db is not None:
            seed = int(subject.noise.generate_state(1, np.uint64)[0])
            generator = torch.Generator().manual_seed(seed)
            std = noise_std(target, self.snr_db)
            for _, _, clean, noisy in zip(*blocks, strict=True):
                noisy[:] = add_noise(clean, std, generator)
        peak = max(float(block.abs().max()) for block in blocks[-1])
        kspace /= peak
        if self.snr_db is not None:
            target /= peak

    def image(self, subject: _Subject) -> Tensor:
        """float32 ``(slice, n0, n1)``, before the coils."""
        contrast = torch.from_numpy(subject.contrast).float()
        first, last = self.slices.start, self.slices.stop
        if self.deformation > 0:
            whole = torch.tensordot(contrast, self.anatomy.classes, 1)
            rng = np.random.default_rng(subject.anatomy)
            image = deform(whole, self.anatomy.voxel_size, self.deformation, rng, self.slices)
        else:
            image = torch.tensordot(contrast, self.anatomy.classes[..., first:last], 1)
        self._refuse_empty(image, float(contrast.max()))
        if subject.image_noise is not None:
            noise = np.random.RandomState(subject.image_noise).standard_normal(SHAPE)
            image = image + _IMAGE_NOISE_STD * torch.from_numpy(noise[..., first:last]).float()
        return image.permute(2, 0, 1)

    def _refuse_empty(self, image: Tensor, brightest: float) -> None:
        """A slice without signal has no error to measure."""
        empty = torch.nonzero(image.amax((0, 1)) <= 1e-3 * brightest).flatten().tolist()
        if empty:
            raise UserError(
                f"brain: slice {self.slices[empty[0]]} holds no head: valid is up to about 100"
            )


def _scale_coils(part: KspaceSet, scale: Tensor) -> KspaceSet:
    """Scale in place: the volumes are large, and nobody else holds them yet."""
    kspace, target = part.kspace, part.target
    kspace *= scale[:, None, None]
    if target is not kspace:
        target *= scale[:, None, None]
    return replace(part, coil_scale=scale)
