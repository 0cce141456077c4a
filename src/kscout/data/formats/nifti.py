"""Magnitude images in NIfTI files, made into k-space of simulated coils."""

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from kscout.data.formats.nifti_volume import NiftiVolume
from kscout.data.formats.scan import UNKNOWN, Scan, refuse_large_arrays
from kscout.data.phase import with_phase
from kscout.data.simulate import NCoils, Phase, SnrDb
from kscout.data.slices import Geometry
from kscout.errors import UserError
from kscout.physics.coils import birdcage_coils
from kscout.physics.fourier import image_to_kspace

_NOISE, _PHASE = range(2)
"""What a random stream is for: equal seeds must not mean equal numbers."""

SIMULATED = (
    "simulated from magnitude images (coils, phase and noise are made up): results on it flatter "
    "every method (Shimron et al. 2022)"
)


class NiftiScan(Scan):
    """Real anatomy in birdcage coils, with the options of :func:`open_nifti`."""

    def __init__(
        self,
        path: Path,
        n_coils: int,
        phase: float,
        snr_db: float | None,
        phase_seed: int,
        noise_seed: int,
    ) -> None:
        self._volume = volume = NiftiVolume(path)
        if volume.is_complex or volume.n_images > 1:
            raise UserError(
                f"{path}: k-space is computed from one magnitude image: this holds "
                f"{'complex values' if volume.is_complex else f'{volume.n_images} images'}"
            )
        if path.suffix != ".gz":
            refuse_large_arrays(path, (n_coils, *volume.plane))
        geometry = Geometry(
            volume.voxel_size or UNKNOWN.voxel_size, 0, volume.thickness or UNKNOWN.slice_thickness
        )
        shape = (volume.n_slices, n_coils, *volume.plane)
        super().__init__(path, shape, geometry, (SIMULATED,), simulated=True)
        self.affine = volume.affine
        self._maps = birdcage_coils(volume.plane, n_coils)
        self._phase, self._phase_seed, self._noise_seed = phase, phase_seed, noise_seed
        self._std = 0.0 if snr_db is None else self._noise_std(snr_db)

    def _noise_std(self, snr_db: float) -> float:
        """As :func:`kscout.physics.noise.noise_std` has it: the transform and coils keep power."""
        power = sum(float(self._image(i).square().sum()) for i in range(self.n_slices))
        return float((power / np.prod(self.shape) * 10 ** (-snr_db / 10)) ** 0.5)

    def _image(self, index: int) -> Tensor:
        image = torch.from_numpy(self._volume.slice(index)[0])
        if image.min() < 0:
            raise UserError(
                f"{self.path}: slice {index} holds negative values: magnitudes are needed"
            )
        return image

    def _read(self, index: int) -> Tensor:
        image = self._image(index)
        if image.any():
            seed = np.random.SeedSequence(self._phase_seed, spawn_key=(_PHASE,))
            position = torch.linspace(-1, 1, self.n_slices)[index : index + 1]
            image = with_phase(image[None], self._phase, position, seed)[0]
        kspace = image_to_kspace((image * self._maps).to(torch.complex64))
        if self._std:
            seed = np.random.SeedSequence(self._noise_seed, spawn_key=(_NOISE, index))
            generator = torch.Generator().manual_seed(int(seed.generate_state(1, np.uint64)[0]))
            noise = torch.randn(kspace.shape, dtype=kspace.dtype, generator=generator)
            kspace = kspace + self._std * noise
        return kspace

    def _find_sampled(self, advance: object) -> Tensor:
        return torch.ones(self.plane, dtype=torch.bool)


def open_nifti(
    path: Path,
    *,
    n_coils: NCoils = 8,
    phase: Phase = 1.0,
    snr_db: SnrDb = None,
    phase_seed: Annotated[int, Field(ge=0, description="of the phase")] = 123,
    noise_seed: Annotated[int, Field(ge=0, description="of the noise")] = 123,
) -> Scan:
    """Magnitudes in simulated birdcage coils, as :func:`kscout.data.knees.knees` has them.

    **Numbers on such scans flatter every method** (Shimron et al. 2022, PNAS 119:e2117203119,
    "Implicit data crimes"): images have been through a pipeline that hides what measured k-space
    has. Pictures lie as their affine says, anterior up. The phase is smooth from slice to slice
    and has the same root mean square in each.

    Raises
    ------
    UserError
        if the file is damaged, or holds anything but one volume of magnitudes
    """
    return NiftiScan(path, n_coils, phase, snr_db, phase_seed, noise_seed)
