"""What the XML header of an ISMRMRD file says of its encodings."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kscout.data.formats.scan import MOST_MM, damage_told
from kscout.errors import UserError

_MOST_BYTES = 16 * 2**20
"""Of XML."""


@dataclass(frozen=True)
class Limits:
    """First, last and central step of a phase encoding."""

    first: int
    last: int
    centre: int


@dataclass(frozen=True)
class Encoding:
    """One encoding space; axes are (readout, phase encoding, second phase encoding).

    Attributes
    ----------
    matrix, recon_matrix : points
    fov, recon_fov : in mm; 0 where it is not said or makes no sense
    steps : limits of both phase encodings, or None where the file does not say
    acceleration : of both, or None
    calibration : how the ACS was acquired, such as "embedded" or "separate"; empty if not said
    trajectory : such as "cartesian"
    """

    matrix: tuple[int, int, int]
    recon_matrix: tuple[int, int, int]
    fov: tuple[float, float, float]
    recon_fov: tuple[float, float, float]
    steps: tuple[Limits | None, Limits | None]
    acceleration: tuple[int, int] | None
    calibration: str
    trajectory: str

    @property
    def is_3d(self) -> bool:
        """Whether there is a second phase encoding."""
        return self.matrix[2] > 1

    @property
    def is_calibrated_apart(self) -> bool:
        """Whether lines that only calibrate may be of another contrast than the image."""
        return self.calibration in ("separate", "external")

    @property
    def n_readout(self) -> int:
        """Points of the readout once its oversampling is gone.

        An oversampled readout has a larger field of view than the image, at the same resolution;
        the image's matrix may be larger, where it is interpolated. Where fields of view are not
        said, a smaller matrix of the image is believed.
        """
        n = self.matrix[0]
        said = self.fov[0] > 0 and self.recon_fov[0] > 0
        return self.n_shown(0, n) if said else min(n, self.recon_matrix[0])

    def n_shown(self, axis: int, n: int) -> int:
        """How many of ``n`` voxels across the encoded field of view lie in that of the image."""
        encoded, shown = self.fov[axis], self.recon_fov[axis]
        return min(n, max(1, round(n * shown / encoded))) if encoded > 0 < shown else n

    @property
    def centres(self) -> tuple[int, int]:
        """The steps that fall on the centre of k-space; the middle where the file does not say."""
        first, second = (
            n // 2 if step is None else step.centre
            for step, n in zip(self.steps, self.matrix[1:], strict=True)
        )
        return first, second

    def __str__(self) -> str:
        matrix, recon = ("x".join(map(str, m)) for m in (self.matrix, self.recon_matrix))
        return f"{self.trajectory} {matrix} for an image of {recon}"


def read_encodings(path: Path, xml: bytes) -> list[Encoding]:
    """The encodings of a header.

    Parameters
    ----------
    path : of the file, for messages
    xml : as the schema of ISMRMRD has it (Inati et al. 2017, Magn. Reson. Med. 77:411)

    Raises
    ------
    UserError
        if it is no such header
    """
    if len(xml) > _MOST_BYTES:
        raise UserError(f"{path}: its ISMRMRD header has {len(xml)} bytes: that is no header")
    with damage_told(path, "its ISMRMRD header cannot be read"), warnings.catch_warnings():
        warnings.simplefilter("error")  # a number that is none would only be warned of
        from ismrmrd.xsd import CreateFromDocument

        encodings = [_encoding(path, each) for each in CreateFromDocument(xml).encoding]
    if not encodings:
        raise UserError(f"{path}: its ISMRMRD header has no encoding")
    return encodings


def _encoding(path: Path, said: Any) -> Encoding:
    limits, parallel = said.encodingLimits, said.parallelImaging
    factor = None if parallel is None else parallel.accelerationFactor
    return Encoding(
        matrix=_matrix(path, said.encodedSpace.matrixSize),
        recon_matrix=_matrix(path, said.reconSpace.matrixSize),
        fov=_lengths(said.encodedSpace.fieldOfView_mm),
        recon_fov=_lengths(said.reconSpace.fieldOfView_mm),
        steps=(
            _limits(limits and limits.kspace_encoding_step_1),
            _limits(limits and limits.kspace_encoding_step_2),
        ),
        acceleration=None if factor is None else (_factor(factor, 1), _factor(factor, 2)),
        calibration=_word(parallel and parallel.calibrationMode),
        trajectory=_word(said.trajectory),
    )


def _word(said: Any) -> str:
    """Of an enumeration; a value that it does not know is a string as it is."""
    return "" if said is None else str(getattr(said, "value", said))


def _factor(said: Any, step: int) -> int:
    return max(1, int(getattr(said, f"kspace_encoding_step_{step}")))


def _matrix(path: Path, said: Any) -> tuple[int, int, int]:
    x, y, z = int(said.x), int(said.y), int(said.z)
    if min(x, y, z) < 1 or max(x, y, z) > 65535:
        raise UserError(f"{path}: its header has a matrix of {x}x{y}x{z}: valid is 1 to 65535")
    return x, y, z


def _lengths(said: Any) -> tuple[float, float, float]:
    x, y, z = (float(length) for length in (said.x, said.y, said.z))
    sensible = all(0 < length < MOST_MM for length in (x, y, z))
    return (x, y, z) if sensible else (0.0, 0.0, 0.0)


def _limits(said: Any) -> Limits | None:
    return None if said is None else Limits(int(said.minimum), int(said.maximum), int(said.center))
