"""The original study's brain recipe with CAIPIRINHA R = 4, fitted in closed form.

    python benchmarks/closed_form.py --tpm TPM.nii

The study's best of 778 models trained for 50 epochs each reached a test NMSE of 2.65e-4, squared
error over squared norm as ``nmse_test`` here; the mean over slices stands beside it. Prints one
JSON object.
"""

import argparse
import json
import os
import time
from pathlib import Path

import torch

from kscout.data import DATA
from kscout.learning.closed_form import fit_closed_form
from kscout.metrics import nmse
from kscout.recon import SpiritNet
from kscout.sampling import Budget, build_sampler
from kscout.sampling.fixed import lattice_count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(os.environ.get("KSCOUT_TEST_DATA", ".")) / "spm_tpm_uint8.npz"
    parser.add_argument("--tpm", type=Path, default=default, help="TPM.nii or .npz")
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--kernel-size", type=int, default=7)
    parser.add_argument("--slices", type=int, default=100)
    options = parser.parse_args()

    start = time.perf_counter()
    splits = DATA["brain"](source="spm_tpm", tpm=options.tpm, n_train=24, n_test=6)
    train, test = splits["train"], splits["test"]
    seconds_data = time.perf_counter() - start
    budget = Budget.of(train.shape, n_samples=lattice_count(train.shape, (2, 2)))
    mask = build_sampler("caipirinha", budget, 0).mask()
    net = SpiritNet(train.n_coils, n_blocks=options.blocks, kernel_size=options.kernel_size)
    fit_closed_form(net, mask, train, seed=0, n_slices=options.slices)
    seconds_fit = time.perf_counter() - start - seconds_data
    errors, energies, per_slice = 0.0, 0.0, []
    with torch.no_grad():
        for i in range(0, len(test), 16):
            part = test.select(slice(i, i + 16))
            estimate = net(part.kspace * mask, mask.float())
            per_slice.append(nmse(estimate, part.target))
            errors += float((estimate - part.target).abs().square().sum())
            energies += float(part.target.abs().square().sum())
    print(
        json.dumps(
            {
                "nmse_test": errors / energies,
                "nmse_test_mean_of_slices": float(torch.cat(per_slice).mean()),
                "nmse_test_original_study": 2.65e-4,
                "seconds": time.perf_counter() - start,
                "seconds_data": seconds_data,
                "seconds_fit": seconds_fit,
                "n_samples": budget.n_samples,
                "acceleration": budget.acceleration,
                "n_blocks": options.blocks,
                "kernel_size": options.kernel_size,
                "n_slices_fitted": options.slices,
                "n_slices_test": len(test),
                "n_threads": torch.get_num_threads(),
            }
        )
    )


if __name__ == "__main__":
    main()
