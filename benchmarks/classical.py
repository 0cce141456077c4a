"""SPIRiT and its neighbours on real scans, on one mask, beside BART where it is installed.

    KSCOUT_TEST_DATA=folder python benchmarks/classical.py [--picture FILE]

Fully sampled slices, masked by a 2D variable density at R = 4 with a 24x24 ACS inside the count.
NRMSE of root-sum-of-squares images against the full data, each image scaled to fit these best.
Every method has seven values of one number, and the best is told: a choice after the fact, the same
for all. The number is the regularisation; of POCS it is how many steps are taken. BART chooses
among eight thresholds of its calibration as well, because one map of the scan that is folded over
is poor at the default, 0.001. 5x5 kernels; 30 conjugate gradients; of what is sparse 20 steps of
ADMM (SPIRiT), 50 of FISTA (SENSE), 100 of BART's own. Coil maps are not cropped, BART's neither
(``-c0``): the whole plane is scored, and what lies outside of maps would be lost.

Speed: 30 conjugate gradients in 4 and in 8 coils of 256x256, with calibration, against
``bart ecalib`` and ``bart pics`` as processes of their own, in turn, medians, with what
``bart version`` takes, which is their start. Set OMP_NUM_THREADS for both. Prints one JSON object;
``ratio`` is BART's time of pics alone over ours with calibration, in 8 coils.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pictures import Images, draw
from torch import Tensor

from kscout.classical import METHODS
from kscout.data.formats.bart import write_cfl
from kscout.physics.coils import birdcage_coils, root_sum_of_squares
from kscout.physics.fourier import image_to_kspace, kspace_to_image
from kscout.sampling import Budget, build_sampler
from kscout.sampling.pattern import find_acs

FOLDED = "brain_t1_8ch_320x168_wrapped"
SCANS = ("brain_mprage_4ch_256x256", "brain_t2_4ch_256x256", FOLDED)
DAMPINGS = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
SPARSITIES = (0.0003, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032)
VARIATIONS = (0.0003, 0.0006, 0.001, 0.002, 0.006, 0.016, 0.05)
GRIDS: dict[str, tuple[str, str, Sequence[float], dict[str, int]]] = {
    "spirit": ("spirit", "damping", DAMPINGS, {}),
    "spirit_pocs": ("spirit_pocs", "n_iterations", (5, 10, 15, 20, 30, 60, 120), {}),
    "l1_spirit": ("l1_spirit", "sparsity", SPARSITIES, {}),
    "tv_spirit": ("tv_spirit", "sparsity", SPARSITIES, {}),
    "sense": ("sense", "damping", DAMPINGS, {"crop": 0}),
    "sense_2_maps": ("sense", "damping", DAMPINGS, {"crop": 0, "n_maps": 2}),
    "l1_sense": ("l1_sense", "sparsity", SPARSITIES, {"crop": 0}),
    "l1_sense_2_maps": ("l1_sense", "sparsity", SPARSITIES, {"crop": 0, "n_maps": 2}),
    "grappa": ("grappa", "regularisation", (0.0001, 0.001, 0.01, 0.03, 0.1, 0.3, 1.0), {}),
}
BART: dict[str, tuple[int, str, Sequence[float]]] = {
    "bart_l2": (1, "-l2 -i30 -r{}", DAMPINGS),
    "bart_l2_2_maps": (2, "-l2 -i30 -r{}", DAMPINGS),
    "bart_l1": (1, "-l1 -i100 -r{}", SPARSITIES),
    "bart_l1_2_maps": (2, "-l1 -i100 -r{}", SPARSITIES),
    "bart_tv": (1, "-i100 -RT:3:0:{}", VARIATIONS),
    "bart_tv_2_maps": (2, "-i100 -RT:3:0:{}", VARIATIONS),
}
THRESHOLDS = (0.0, 0.00002, 0.0001, 0.001, 0.01, 0.05, 0.2, 0.5)
"""Of BART's calibration (``-t``), which takes their square root of the largest singular value."""

N_TIMED = 7


def variable_density(shape: tuple[int, int]) -> Tensor:
    budget = Budget.of(shape, acceleration=4, acs="square", acs_size=24)
    return build_sampler("variable_density", budget, seed=0, power=1.5).mask()


def rss(kspace: Tensor) -> NDArray[np.float32]:
    return root_sum_of_squares(kspace_to_image(kspace)).numpy()


def nrmse(image: NDArray[Any], full: NDArray[Any]) -> float:
    return float(np.linalg.norm(scaled(image, full) - full) / np.linalg.norm(full))


def scaled(image: NDArray[Any], full: NDArray[Any]) -> NDArray[Any]:
    """As it fits the full data best."""
    return image * (image * full).sum() / (image**2).sum()


def read_cfl(path: Path) -> NDArray[np.complex64]:
    sizes = [int(n) for n in path.with_suffix(".hdr").read_text().splitlines()[1].split()]
    return np.fromfile(path.with_suffix(".cfl"), np.complex64).reshape(sizes, order="F").squeeze()


def bart(folder: Path, command: str) -> None:
    subprocess.run(["bart", *command.split()], cwd=folder, check=True, capture_output=True)


def best_of(run: Callable[[float], float], values: Sequence[float]) -> dict[str, Any]:
    tried = {f"{value:g}": run(value) for value in values}
    best = min(tried, key=lambda value: tried[value])
    return {"nrmse": tried[best], "at": best, "tried": tried}


def ours(scan: Tensor, mask: Tensor, names: Sequence[str]) -> dict[str, Any]:
    acs, full = find_acs(mask), rss(scan)[0]

    def error(name: str, value: float) -> float:
        kind, option, _, others = GRIDS[name]
        completed = METHODS[kind](scan, mask, acs, **{option: value}, **others)
        return nrmse(rss(completed)[0], full)

    found = {"zero_filled": {"nrmse": nrmse(rss(scan * mask)[0], full)}}
    return found | {name: best_of(partial(error, name), GRIDS[name][2]) for name in names}


def pictured(scan: Tensor, mask: Tensor, errors: dict[str, Any]) -> Images:
    """SPIRiT, and SENSE with one map and with two, each at its best."""
    full = rss(scan)[0]
    images = {"full data": full, "zero-filled": scaled(rss(scan * mask)[0], full)}
    for name, title in (
        ("spirit", "SPIRiT"),
        ("sense", "SENSE, 1 map"),
        ("sense_2_maps", "SENSE, 2 maps"),
    ):
        kind, option, _, others = GRIDS[name]
        value = float(errors[name]["at"])
        options = {option: value, **others}
        completed = METHODS[kind](scan, mask, find_acs(mask), **options)
        images[title] = scaled(rss(completed)[0], full)
    return images


def barts(scan: Tensor, mask: Tensor) -> dict[str, Any]:
    full, peak = rss(scan)[0], float(kspace_to_image(scan).abs().max())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_cfl(folder / "y.cfl", scan * mask / peak, scan.shape)

        def error(options: str, value: float) -> float:
            bart(folder, f"pics {options.format(value)} y maps image")
            bart(folder, "fmac -s 16 maps image coils")
            image = np.sqrt((np.abs(read_cfl(folder / "coils")) ** 2).sum(-1))
            return nrmse(image, full)

        found = {}
        for kind, (n_maps, options, values) in BART.items():
            tries: dict[float, dict[str, Any]] = {}
            for threshold in THRESHOLDS:
                bart(folder, f"ecalib -m{n_maps} -r24 -c0 -t{threshold} y maps")
                tries[threshold] = best_of(partial(error, options), values)
            best = min(tries, key=lambda threshold: tries[threshold]["nrmse"])
            of_thresholds = {f"{threshold:g}": each["nrmse"] for threshold, each in tries.items()}
            found[kind] = tries[best] | {"threshold": best, "thresholds": of_thresholds}
        return found


def timed(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def simulated(n_coils: int) -> tuple[Tensor, Tensor, tuple[int, int]]:
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, 256)] * 2, indexing="ij")
    image = ((x / 0.7) ** 2 + (y / 0.9) ** 2 < 1).to(torch.complex64)
    noise = torch.randn(
        n_coils, 256, 256, dtype=torch.complex64, generator=torch.Generator().manual_seed(0)
    )
    kspace = image_to_kspace(image * birdcage_coils((256, 256), n_coils)) + 0.01 * noise
    mask = variable_density((256, 256))
    return kspace[None], mask, find_acs(mask)


def speed(n_coils: int) -> dict[str, Any]:
    kspace, mask, acs = simulated(n_coils)
    times: dict[str, list[float]] = {
        "spirit": [],
        "bart_pics": [],
        "bart_ecalib": [],
        "bart_version": [],
    }
    has_bart = shutil.which("bart") is not None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_cfl(folder / "y.cfl", kspace * mask, kspace.shape)
        for _ in range(N_TIMED):
            times["spirit"].append(timed(lambda: METHODS["spirit"](kspace, mask, acs)))
            if has_bart:
                times["bart_ecalib"].append(timed(lambda: bart(folder, "ecalib -m1 -r24 y maps")))
                times["bart_version"].append(timed(lambda: bart(folder, "version")))
                run = partial(bart, folder, "pics -l2 -r0.01 -i30 y maps image")
                times["bart_pics"].append(timed(run))
    seconds = {name: statistics.median(found) for name, found in times.items() if found}
    ratio = seconds["bart_pics"] / seconds["spirit"] if has_bart else None
    return {"seconds": seconds, "ratio": ratio, "threads": torch.get_num_threads()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-grappa", action="store_true", help="which takes minutes a scan")
    parser.add_argument("--picture", type=Path, help=".png of the scan that is folded over")
    asked = parser.parse_args()
    data = os.environ.get("KSCOUT_TEST_DATA")
    if data is None:
        sys.exit("KSCOUT_TEST_DATA names no folder with kspace/*.npy")
    names = [name for name in GRIDS if name != "grappa" or not asked.no_grappa]
    errors: dict[str, Any] = {}
    for name in SCANS:
        scan = torch.from_numpy(np.load(Path(data) / "kspace" / f"{name}.npy"))[None]
        mask = variable_density((scan.shape[-2], scan.shape[-1]))
        errors[name] = ours(scan, mask, names)
        if asked.picture is not None and name == FOLDED:
            draw(pictured(scan, mask, errors[name]), asked.picture, height=300)
        if shutil.which("bart"):
            errors[name] |= barts(scan, mask)
    timing = {f"{n}_coils": speed(n) for n in (4, 8)}
    print(
        json.dumps(
            {
                "benchmark": "classical",
                "ratio": timing["8_coils"]["ratio"],
                "nrmse": errors,
                "speed": timing,
            }
        )
    )


if __name__ == "__main__":
    main()
