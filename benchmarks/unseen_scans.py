"""Real scans at R = 4: zero-filled, SPIRiT, and networks that have seen only simulated brains.

    KSCOUT_TEST_DATA=FOLDER python benchmarks/unseen_scans.py [--out OUT]

FOLDER/kspace holds the scans of ``SCANS``: fully sampled, complex64 (coil, ky, kx), one slice each,
masked here. Every method sees the acquired points alone: SPIRiT kernels are fitted to the ACS of
the scan, coil maps, noise and texture come from the scan too, and what is learned comes from
simulated brains in 5 simulated coils. Acquired points are put back as measured, for all methods
alike, because the reference holds their noise. Prints one JSON object, and writes the table and the
picture of one scan to ``real_scans.md`` and ``real_scans.png`` in the folder OUT.
"""

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pictures import GAIN, Images, draw
from torch import Tensor

from kscout.atomic import atomic_path
from kscout.data import DATA, Splits
from kscout.data.files import read_fully_sampled
from kscout.learning.joint import fit_jointly
from kscout.metrics import nmse, psnr, ssim
from kscout.physics.calibration import neighbours, normal_equations, solve_kernel
from kscout.physics.coils import root_sum_of_squares
from kscout.physics.fourier import centre_block, kspace_to_image
from kscout.recon.cg_spirit import REGULARISATION, CgSpirit
from kscout.recon.gaussian_sense import GaussianSense
from kscout.recon.varnet import VarNet
from kscout.recon.zero_filled import ZeroFilled
from kscout.sampling import Budget, Sampler, build_sampler

SCANS = ("brain_mprage_4ch_256x256", "brain_t2_4ch_256x256", "brain_t1_8ch_320x168_wrapped")
MASKS: dict[str, dict[str, float]] = {
    "variable_density": {},
    "caipirinha": {},
    "spread_density": {"power": 0.5},  # chosen on simulated brains by configs/suites/noise_r4.yaml
}
ACCELERATION, ACS_SIZE, SEED = 4, 24, 0

MATRIX = (96, 112)
"""Of the simulated brains, whose fine detail ends there."""

N_COILS = 5
"""Simulated: a number that none of the scans has."""

SHOWN = ("brain_t2_4ch_256x256", "caipirinha")

Method = Callable[[Tensor, Tensor], Tensor]
Scores = dict[str, dict[str, dict[str, float]]]
"""By mask, method and metric."""
TEXT = """# Real scans at R = 4

    KSCOUT_TEST_DATA=FOLDER python benchmarks/unseen_scans.py --out results

Single slices of real scans, masked to a quarter of their points, a 24x24 ACS among them. NRMSE (the
root of the NMSE) / PSNR in dB / SSIM of the root-sum-of-squares image against the full scan.

{table}

- Nothing but acquired points is seen of a scan. `SPIRiT` (5x5, conjugate gradients) is calibrated
  on its ACS; the others take coil maps from its ACS, and noise and texture from what was acquired
  (`for_scan`). `varnet` was trained on simulated brains alone: {n_slices} slices of {matrix} points
  with 5 simulated coils, a smooth phase and noise, {seconds:.0f} s on {n_threads} thread(s).
- The reference is as noisy as the data. Therefore acquired points are put back as measured, for all
  methods, and an estimate free of noise is not rewarded.
- The third head is larger than its field of view. Where it folds over itself one sensitivity per
  coil and pixel cannot be right; SPIRiT needs none. ESPIRiT takes two sets of maps there (Uecker
  et al. 2014).
- `spread_density` has the power, 0.5, that validation chose for simulated brains with noise of
  20 dB; the others have their defaults.
- Three slices are few, and the scans were looked at while noise share, iterations and training set
  were chosen: these are examples, not a test.

![Reference, reconstructions, details and errors](real_scans.png)

{shown}
"""


def budget_of(shape: tuple[int, int]) -> Budget:
    return Budget.of(shape, acceleration=ACCELERATION, acs="square", acs_size=ACS_SIZE)


def new_network(n_iterations: int) -> VarNet:
    return VarNet(N_COILS, SEED, acs_size=ACS_SIZE, n_iterations=n_iterations)


class ManyMasks(Sampler):
    """One of several masks, drawn anew for every step, so that none is learned by heart."""

    masks: Tensor

    def __init__(self, budget: Budget, n_each: int) -> None:
        super().__init__(budget)
        kinds = ("variable_density", "poisson_disc", "caipirinha")
        made = [
            build_sampler(kind, budget, seed).mask() for kind in kinds for seed in range(n_each)
        ]
        self.register_buffer("masks", torch.stack(made).float())

    def forward(self, generator: torch.Generator | None = None) -> Tensor:
        if generator is None:
            return self.masks[0]
        return self.masks[int(torch.randint(len(self.masks), (), generator=generator))]


def simulated(n_train: int) -> Splits:
    """Brains with a smooth phase and noise in simulated coils."""
    return DATA["brain"](
        **{"n_train": n_train, "n_val": 0, "n_test": 1, "n_coils": N_COILS, "coils": "birdcage"},
        **{"slices": (50, 90), "matrix": MATRIX, "phase": 1.0, "snr_db": 22.0},
    )


def trained(splits: Splits, epochs: int) -> VarNet:
    """The network for scans, trained on simulated brains."""
    part, net = splits["train"], new_network(8)
    net.calibrate(part.kspace, part.target, part.coil_scale, SEED)
    masks = ManyMasks(budget_of(part.shape), 4)
    with tempfile.TemporaryDirectory() as folder:
        fit_jointly(
            *(masks, net, part, splits["val"]),
            folder=Path(folder),
            seed=SEED,
            epochs=epochs,
            batch_size=4,
            learning_rate=3e-3,
            mask_learning_rate=0.0,
            progress=sys.stderr.isatty(),
        )
    network = new_network(20)  # larger planes take longer to solve
    network.load_state_dict(net.state_dict())
    return network


def spirit(kspace: Tensor, mask: Tensor, noise_std: float, *, kernel_size: int = 5) -> CgSpirit:
    """SPIRiT calibrated on the ACS of one slice, at the points whose neighbours are all in it."""
    acs = kspace[..., *centre_block(mask.shape, (ACS_SIZE, ACS_SIZE))]
    half = kernel_size // 2
    inner = torch.cartesian_prod(*2 * (torch.arange(half, ACS_SIZE - half),))
    equations = normal_equations(acs, acs, [inner], kernel_size, "zero")
    net = CgSpirit(kspace.shape[1], kernel_size=kernel_size, n_iterations=30)
    kernel = solve_kernel(*equations, kernel_size, REGULARISATION)
    rows, columns = inner.unbind(1)
    around = neighbours(acs[0], kernel_size, "zero")[..., rows, columns].flatten(0, 2)
    residual = kernel.flatten(1) @ around - acs[0][:, rows, columns]
    with torch.no_grad():
        net.weights.copy_(kernel)
        net.log_residual.copy_(residual.abs().square().mean(1).log())
        net.log_noise.fill_(2 * math.log(noise_std))
    return net


def methods_for(kspace: Tensor, mask: Tensor, network: VarNet) -> dict[str, Method]:
    """Every method, made for a scan of which ``kspace`` holds the acquired points."""
    n_coils = kspace.shape[1]
    linear = GaussianSense(n_coils, acs_size=ACS_SIZE).for_scan(kspace, mask)
    return {
        "zero-filled": ZeroFilled(n_coils),
        "SPIRiT": spirit(kspace, mask, float(linear.noise_std)),
        "gaussian_sense": linear,
        "varnet": network.for_scan(kspace, mask),
    }


@torch.no_grad()
def score(estimate: Tensor, reference: Tensor) -> dict[str, float]:
    """Of magnitude images ``(1, y, x)``."""
    top = reference.amax((-2, -1))
    return {
        "nrmse": float(nmse(estimate, reference).sqrt()),
        "psnr": float(psnr(estimate, reference, top)),
        "ssim": float(ssim(estimate, reference, top)),
    }


@torch.no_grad()
def compare(scan: Tensor, network: VarNet) -> tuple[Scores, dict[str, Images]]:
    """Scores ``[mask][method]`` and images ``[mask][method]`` of one scan ``(1, coil, ky, kx)``."""
    shape = (scan.shape[-2], scan.shape[-1])
    reference = root_sum_of_squares(kspace_to_image(scan))
    scores: Scores = {}
    images: dict[str, Images] = {}
    for kind, options in MASKS.items():
        mask = build_sampler(kind, budget_of(shape), SEED, **options).mask().float()
        acquired = scan * mask
        scores[kind], images[kind] = {}, {"reference": reference[0].numpy()}
        for name, method in methods_for(acquired, mask, network).items():
            start = time.perf_counter()
            completed = acquired + (1 - mask) * method(acquired, mask)
            seconds = time.perf_counter() - start
            image = root_sum_of_squares(kspace_to_image(completed))
            scores[kind][name] = score(image, reference) | {"seconds": seconds}
            images[kind][name] = image[0].numpy()
    return scores, images


def table(scores: dict[str, Scores]) -> str:
    """One row per method, one column per scan and mask."""
    columns = [(scan, mask) for scan in SCANS for mask in MASKS]
    head = [f"{scan.removeprefix('brain_')}, {mask.replace('_', ' ')}" for scan, mask in columns]
    lines = ["| method | " + " | ".join(head) + " |", "| --- |" + " ---: |" * len(columns)]
    for method in scores[SCANS[0]][next(iter(MASKS))]:
        cells = [f"| {method} "]
        for scan, mask in columns:
            here = scores[scan][mask]
            mine = here[method]
            text = f"{mine['nrmse']:.4f}"
            if mine["nrmse"] == min(other["nrmse"] for other in here.values()):
                text = f"**{text}**"
            cells.append(f"| {text} / {mine['psnr']:.2f} / {mine['ssim']:.3f} ")
        lines.append("".join(cells) + "|")
    return "\n".join(lines)


def write_results(folder: Path, summary: dict[str, Any], images: Images) -> None:
    """``real_scans.md`` and, of the one scan and mask that are shown, ``real_scans.png``."""
    text = TEXT.format(
        table=table(summary["scores"]),
        n_slices=summary["n_slices_trained"],
        matrix=f"{MATRIX[0]}x{MATRIX[1]}",
        seconds=summary["seconds_training"],
        n_threads=summary["n_threads"],
        shown=f"{SHOWN[0]}, {SHOWN[1]}; NRMSE above each image, error maps magnified {GAIN} times.",
    )
    with atomic_path(folder / "real_scans.md") as temporary:
        temporary.write_text(text)
    draw(images, folder / "real_scans.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--volumes", type=int, default=16, help="simulated, to train on")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--out", type=Path, help="folder for the table and the picture")
    options = parser.parse_args()
    folder = Path(os.environ.get("KSCOUT_TEST_DATA", ".")) / "kspace"
    scans = {name: read_fully_sampled(folder / f"{name}.npy") for name in SCANS}
    splits = simulated(options.volumes)
    start = time.perf_counter()
    network = trained(splits, options.epochs)
    seconds = time.perf_counter() - start
    compared = {name: compare(scan / scan.abs().max(), network) for name, scan in scans.items()}
    summary = {
        "n_slices_trained": len(splits["train"]),
        "seconds_training": seconds,
        "n_threads": torch.get_num_threads(),
        "scores": {name: scores for name, (scores, _) in compared.items()},
    }
    if options.out:
        write_results(options.out, summary, compared[SHOWN[0]][1][SHOWN[1]])
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
