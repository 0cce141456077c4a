"""ISMRMRD files made for tests, with the library that everybody writes them with."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ismrmrd
import ismrmrd.xsd as xsd
import numpy as np
import torch
from torch import Tensor

from kscout.physics.fourier import image_to_kspace, readout_to_space, space_to_readout
from laws import complex_normal


@dataclass
class Space:
    """One encoding space of the header; sizes are (readout, phase, second phase)."""

    matrix: tuple[int, int, int]
    recon: tuple[int, int, int]
    fov: tuple[float, float, float]
    recon_fov: tuple[float, float, float]
    centre: tuple[int, int] | None = None
    acceleration: int | None = None
    calibration: str | None = None
    trajectory: str = "cartesian"


@dataclass
class Line:
    """One acquisition, ``(coil, sample)``."""

    samples: np.ndarray
    step: tuple[int, int] = (0, 0)
    flags: tuple[int, ...] = ()
    counters: dict[str, int] = field(default_factory=dict)
    head: dict[str, Any] = field(default_factory=dict)


def space_2d(n_readout: int, n_lines: int, *, oversampling: int = 1, **changes: Any) -> Space:
    """Voxels of 2 x 3 x 5 mm."""
    fov = (2.0 * n_readout, 3.0 * n_lines, 5.0)
    return Space(
        **{
            "matrix": (oversampling * n_readout, n_lines, 1),
            "recon": (n_readout, n_lines, 1),
            "fov": (oversampling * fov[0], *fov[1:]),
            "recon_fov": fov,
            **changes,
        }
    )


def write_mrd(path: Path, spaces: Space | list[Space], lines: Iterable[Line]) -> Path:
    with ismrmrd.Dataset(str(path), mode="w") as dataset:
        spaces = [spaces] if isinstance(spaces, Space) else spaces
        dataset.write_xml_header(xsd.ToXML(_header(spaces)).encode())
        for number, line in enumerate(lines):
            dataset.append_acquisition(_acquisition(line, number))
    return path


def _header(spaces: list[Space]) -> xsd.ismrmrdHeader:
    return xsd.ismrmrdHeader(
        experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=64_000_000),
        encoding=[_encoding(space) for space in spaces],
    )


def _encoding(space: Space) -> xsd.encodingType:
    limits = xsd.encodingLimitsType()
    if space.centre is not None:
        first, second = (
            xsd.limitType(minimum=0, maximum=n - 1, center=centre)
            for n, centre in zip(space.matrix[1:], space.centre, strict=True)
        )
        limits = xsd.encodingLimitsType(kspace_encoding_step_1=first, kspace_encoding_step_2=second)
    parallel = None
    if space.acceleration is not None:
        factor = xsd.accelerationFactorType(
            kspace_encoding_step_1=space.acceleration, kspace_encoding_step_2=1
        )
        mode = space.calibration and xsd.calibrationModeType(space.calibration)
        parallel = xsd.parallelImagingType(accelerationFactor=factor, calibrationMode=mode)
    return xsd.encodingType(
        encodedSpace=_space(space.matrix, space.fov),
        reconSpace=_space(space.recon, space.recon_fov),
        encodingLimits=limits,
        trajectory=xsd.trajectoryType(space.trajectory),
        parallelImaging=parallel,
    )


def _space(matrix: tuple[int, int, int], fov: tuple[float, float, float]) -> Any:
    return xsd.encodingSpaceType(
        matrixSize=xsd.matrixSizeType(**_named(matrix)),
        fieldOfView_mm=xsd.fieldOfViewMm(**_named(fov)),
    )


def _named(values: Iterable[Any]) -> dict[str, Any]:
    return dict(zip("xyz", values, strict=True))


def _acquisition(line: Line, number: int) -> ismrmrd.Acquisition:
    acquisition = ismrmrd.Acquisition.from_array(np.ascontiguousarray(line.samples, np.complex64))
    acquisition.center_sample = line.samples.shape[1] // 2
    acquisition.sample_time_us = 5.0
    acquisition.scan_counter = number
    for flag in line.flags:
        acquisition.setFlag(flag)
    acquisition.idx.kspace_encode_step_1, acquisition.idx.kspace_encode_step_2 = line.step
    for name, value in line.counters.items():
        setattr(acquisition.idx, name, value)
    for name, value in line.head.items():
        setattr(acquisition, name, value)
    return acquisition


def plane(n_coils: int, shape: tuple[int, int], seed: int = 0) -> Tensor:
    """k-space of a random image, complex64 ``(coil, readout, phase)``."""
    return image_to_kspace(complex_normal((n_coils, *shape), seed))


def oversampled(kspace: Tensor, factor: int) -> Tensor:
    """The same object in a field of view ``factor`` times as long along the readout."""
    space = readout_to_space(kspace.mT)
    n = space.shape[-1]
    wide = torch.zeros(*space.shape[:-1], factor * n, dtype=space.dtype)
    start = factor * n // 2 - n // 2
    wide[..., start : start + n] = space
    return space_to_readout(wide).mT


def lines_of(kspace: Tensor, steps: Iterable[int] | None = None, **changes: Any) -> list[Line]:
    """One acquisition for each column, in order."""
    steps = range(kspace.shape[-1]) if steps is None else steps
    return [Line(kspace[..., step].numpy(), (step, 0), **changes) for step in steps]
