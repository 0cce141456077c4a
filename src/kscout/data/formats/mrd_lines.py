"""Where the readouts of an ISMRMRD file lie in its encoded matrix."""

from pathlib import Path

import numpy as np
from torch import Tensor

from kscout.data.formats.mrd_choice import REVERSE, Chosen, what_is_missing
from kscout.data.formats.mrd_header import Encoding
from kscout.data.formats.mrd_records import Records
from kscout.errors import UserError


class Lines:
    """The lines of the chosen acquisitions, each one readout at a step of each phase encoding.

    Attributes
    ----------
    n_coils, n_kept : coils, and samples of a readout that are not to be discarded
    start : where in the encoded readout the first of them lies
    acquired : bool ``(step 1, step 2)``, in some slice
    of_slice : by number of the slice, the acquisitions that make it
    lost : what is missing, in words; empty if nothing is
    notes : what was averaged, filled or left out

    Raises
    ------
    UserError
        if one lies outside of the matrix, or sizes are mixed
    """

    def __init__(self, path: Path, records: Records, space: Encoding, chosen: Chosen) -> None:
        self._path, self._records, self._space = path, records, space
        used = np.concatenate([chosen.imaging, chosen.calibration])
        heads = records.heads[used]
        self.n_coils = self._same(heads["active_channels"], "coils")
        kept = heads["number_of_samples"] - heads["discard_pre"] - heads["discard_post"]
        self.n_kept = self._same(kept, "samples")
        if self.n_coils < 1 or self.n_kept < 1:
            raise UserError(
                f"{path}: its acquisitions have {self.n_coils} coils and {self.n_kept} samples"
            )
        self._reversed = records.is_flagged(REVERSE)
        self.start = self._readout_start(heads, self._reversed[used])
        self._line, self._partition = self._places(used)
        self._choose_lines(chosen)

    def _same(self, values: np.ndarray, what: str) -> int:
        found = np.unique(values)
        if len(found) > 1:
            raise UserError(
                f"{self._path}: mixes acquisitions of {found[0]} and {found[-1]} {what}"
            )
        return int(found[0])

    def _readout_start(self, heads: np.ndarray, is_reversed: np.ndarray) -> int:
        n = self._space.matrix[0]
        centre = self._same(self._centres(heads, is_reversed), "as the central sample")
        start = n // 2 - centre
        # Of whole readouts some writers round the centre, leave it at 0, or give the image's.
        usual = centre in (0, self._space.n_readout // 2)
        if self.n_kept == n and (usual or abs(start) <= 1):
            return 0
        if start < 0 or start + self.n_kept > n:
            raise UserError(
                f"{self._path}: readouts of {self.n_kept} samples around number {centre} do not "
                f"fit the encoded readout of {n}"
            )
        return start

    def _centres(self, heads: np.ndarray, is_reversed: np.ndarray) -> np.ndarray:
        """Among the samples that are kept, from -k to k.

        Of a reversed readout the header may count in the order of acquisition, or after it is
        turned round: whichever agrees with the others.
        """
        said, before, after = (
            heads[name] for name in ("center_sample", "discard_pre", "discard_post")
        )
        forwards = said - before
        turned, counted = self.n_kept - 1 - forwards, said - after
        others = forwards[~is_reversed]
        centres = np.where(is_reversed, counted, forwards)
        if len(others):
            centres = np.where(is_reversed & (turned == others[0]), turned, centres)
        if self.n_kept == self._space.matrix[0]:
            centres = np.where(said == 0, 0, centres)
            if len(set(centres.tolist()) - {0}) == 1:
                centres = np.full_like(centres, centres.max())
        return centres

    def _places(self, used: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        heads, (ny, nz) = self._records.heads, self._space.matrix[1:]
        first, second = self._space.centres
        line = heads["kspace_encode_step_1"] - first + ny // 2
        partition = heads["kspace_encode_step_2"] - second + nz // 2
        if not self._space.is_3d:
            partition = np.zeros_like(line)
        outside = (line < 0) | (line >= ny) | (partition < 0) | (partition >= nz)
        if outside[used].any():
            one = heads[used[np.argmax(outside[used])]]
            raise UserError(
                f"{self._path}: encode steps {one['kspace_encode_step_1']}, "
                f"{one['kspace_encode_step_2']} of an acquisition lie outside of the encoded "
                f"matrix of {ny}x{nz} around {first}, {second}"
            )
        return line, partition

    def _choose_lines(self, chosen: Chosen) -> None:
        imaging = {number: self._in_slice(chosen.imaging, number) for number in chosen.slices}
        fill = {n: self._filling(chosen, n, found) for n, found in imaging.items()}
        self.of_slice = {n: np.sort(np.concatenate([imaging[n], fill[n]])) for n in chosen.slices}
        alone, counts = (
            {number: self.count(found) for number, found in each.items()}
            for each in (imaging, self.of_slice)
        )
        # Calibration may hide a line that was lost of the image.
        acceleration = self._space.acceleration
        self.lost = what_is_missing(counts, acceleration) or what_is_missing(alone, acceleration)
        self.acquired = np.any([each > 0 for each in counts.values()], 0)
        filled = np.any([self.count(found) > 0 for found in fill.values()], 0)
        most = max(int(each.max()) for each in counts.values())
        self.notes = self._say(most, filled)

    def _in_slice(self, numbers: np.ndarray, slice_number: int) -> np.ndarray:
        return numbers[self._records.heads["slice"][numbers] == slice_number]

    def _filling(self, chosen: Chosen, slice_number: int, imaging: np.ndarray) -> np.ndarray:
        """Acquisitions that only calibrate, at lines that no other of the slice acquires."""
        found, there = self._in_slice(chosen.calibration, slice_number), self.count(imaging) > 0
        return found[~there[self._line[found], self._partition[found]]]

    def count(self, numbers: np.ndarray) -> np.ndarray:
        """How often each line is among these acquisitions, int64 ``(step 1, step 2)``."""
        ny, nz = self._space.matrix[1:]
        counts = np.zeros((ny, nz if self._space.is_3d else 1), np.int64)
        np.add.at(counts, (self._line[numbers], self._partition[numbers]), 1)
        return counts

    def place(self, number: int) -> tuple[int, int]:
        """The line of an acquisition, ``(step 1, step 2)``."""
        return int(self._line[number]), int(self._partition[number])

    def kept(self, number: int, samples: Tensor) -> Tensor:
        """Samples of an acquisition that count, from -k to k: ``(coil, kept)``."""
        before = int(self._records.heads["discard_pre"][number])  # of what was acquired first
        kept = samples[:, before : before + self.n_kept]
        return kept.flip(1) if self._reversed[number] else kept

    def _say(self, most_repeats: int, filled: np.ndarray) -> list[str]:
        space, said = self._space, []
        if self.lost:
            said.append(f"read without what it lacks: {self.lost}")
        if space.n_readout < space.matrix[0]:
            said.append(f"readout oversampling removed: {space.matrix[0]} to {space.n_readout}")
        if self.n_kept < space.matrix[0]:
            said.append(f"partial echo: {self.n_kept} of {space.matrix[0]} samples of the readout")
        if most_repeats > 1:
            said.append(f"up to {most_repeats} acquisitions of a line are averaged")
        if filled.any():
            said.append(f"{int(filled.sum())} lines come from acquisitions that only calibrate")
        names = ("phase encoding", "second phase encoding")[: 2 if space.is_3d else 1]
        for axis, (name, centre) in enumerate(zip(names, space.centres, strict=False)):
            there = np.flatnonzero(self.acquired.any(1 - axis))
            n = self.acquired.shape[axis]
            if max(there[0], n - 1 - there[-1]) > n // 8:
                low, high = (int(at) - n // 2 + centre for at in (there[0], there[-1]))
                said.append(f"partial Fourier: {name} steps {low} to {high} in a matrix of {n}")
        return said
