"""A volume of many slices by `kscout recon`: seconds and memory, beside BART slice by slice.

    python benchmarks/volume.py

100 slices of 8 coils and 256x256 as HDF5, 2D variable density at R = 4 with a 24x24 ACS, each slice
calibrated on its own, 30 conjugate gradients, images as NIfTI. The floor in memory is one slice,
4 MB, and PyTorch; in time, the 840 MB that are read and the 26 MB that are written are nothing, and
30 iterations cost 2 x 30 x 8 transforms and as many products with 8x8 matrices at every pixel,
about 2.5 GFLOP a slice. BART (`ecalib -m1`, `pics -l2 -i30`) runs on the first few slices, written
for it, and is told for one; `ratio` is its time for a slice over ours. Prints one JSON object.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from kscout.data.formats import Scan
from kscout.data.formats.bart import write_cfl
from kscout.data.writers import write_scan
from kscout.physics.coils import birdcage_coils
from kscout.physics.fourier import image_to_kspace
from kscout.sampling import Budget, build_sampler

SHAPE = (256, 256)
N_COILS = 8
N_BART = 5


class Volume(Scan):
    """An ellipsoid in eight coils, with noise, as it was acquired."""

    def __init__(self, n_slices: int) -> None:
        super().__init__(Path("volume"), (n_slices, N_COILS, *SHAPE))
        self.coils = birdcage_coils(SHAPE, N_COILS)
        budget = Budget.of(SHAPE, acceleration=4, acs="square", acs_size=24)
        self.mask = build_sampler("variable_density", budget, seed=0, power=1.5).mask()

    def _read(self, index: int) -> Tensor:
        y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
        z = (2 * index + 1) / self.n_slices - 1
        image = ((x / 0.7) ** 2 + (y / 0.9) ** 2 + z**2 < 1.2).to(torch.complex64)
        shape = (N_COILS, *SHAPE)
        generator = torch.Generator().manual_seed(index)
        noise = torch.randn(shape, dtype=torch.complex64, generator=generator)
        return (image_to_kspace(image * self.coils) + 0.01 * noise) * self.mask


def timed(command: list[str], folder: Path) -> float:
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - start


def barts(volume: Volume, folder: Path) -> dict[str, float]:
    found: dict[str, list[float]] = {"bart_ecalib": [], "bart_pics": []}
    for index in range(N_BART):
        write_cfl(folder / "y.cfl", volume.read(index)[None], (1, N_COILS, *SHAPE))
        command = ["bart", "ecalib", "-m1", "-r24", "y", "maps"]
        found["bart_ecalib"].append(timed(command, folder))
        command = ["bart", "pics", "-l2", "-r0.01", "-i30", "y", "maps", "image"]
        found["bart_pics"].append(timed(command, folder))
    return {name: statistics.median(times) for name, times in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-slices", type=int, default=100)
    n_slices = parser.parse_args().n_slices
    volume = Volume(n_slices)
    command = [sys.executable, "-c", "from kscout.cli import main; main()", "recon", "volume.h5"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_scan(folder / "volume.h5", volume, lambda done, total: None)
        seconds = timed([*command, "--out", "image.nii"], folder)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        has_bart = shutil.which("bart") is not None
        each = {"kscout": seconds / n_slices} | (barts(volume, folder) if has_bart else {})
    ratio = (each["bart_ecalib"] + each["bart_pics"]) / each["kscout"] if has_bart else None
    found = {
        "benchmark": "volume",
        "ratio": ratio,
        "n_slices": n_slices,
        "seconds": seconds,
        "peak_bytes": peak,
        "seconds_per_slice": each,
        "threads": os.environ.get("OMP_NUM_THREADS", str(torch.get_num_threads())),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
