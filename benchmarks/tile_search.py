"""Exhaustive search of 4x4 tiles at R = 4 on the original study's brain recipe.

    python benchmarks/tile_search.py --tpm TPM.nii

All 122 tiles (1,820 up to cyclic shift) are ranked by one block, the best eight by the whole stack
on held-out training scans; then the winner and CAIPIRINHA are fitted and tested alike. Prints one
JSON object.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from rich.console import Console

from kscout.evaluation import evaluate, summarise
from kscout.experiment import load_data, load_experiment
from kscout.experiment.run import Method
from kscout.learning.closed_form import fit_closed_form
from kscout.recon import SpiritNet
from kscout.sampling import build_sampler

CONFIG = Path(__file__).parent.parent / "configs" / "brain_original.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(os.environ.get("KSCOUT_TEST_DATA", ".")) / "spm_tpm_uint8.npz"
    parser.add_argument("--tpm", type=Path, default=default, help="TPM.nii or .npz")
    options = parser.parse_args()
    console = Console(file=sys.stderr)
    experiment = load_experiment(CONFIG, [f"data.tpm={options.tpm}"])
    splits = load_data(experiment, console)
    method = Method.of(experiment, splits)
    start = time.perf_counter()
    ranked = method.search(splits, console)
    seconds = time.perf_counter() - start
    masks = {
        "best_tile": ranked[0].mask(method.budget),
        "caipirinha": build_sampler("caipirinha", method.budget, 0).mask(),
    }
    scores = {}
    for name, mask in masks.items():
        net = SpiritNet(splits["train"].n_coils, **experiment.reconstructor.options())
        fit_closed_form(net, mask, splits["train"], seed=experiment.seed)
        scores[name] = summarise(evaluate(mask, net, splits["test"], split="test"))["test"]
    print(
        json.dumps(
            {
                "seconds_search": seconds,
                "n_tiles": len(ranked),
                "best_tile": ranked[0].tile.int().tolist(),
                "same_mask": bool((masks["best_tile"] == masks["caipirinha"]).all()),
                "nmse_test": {name: score["nmse_kspace"] for name, score in scores.items()},
                "psnr_test": {name: score["psnr"] for name, score in scores.items()},
                "n_samples": method.budget.n_samples,
            }
        )
    )


if __name__ == "__main__":
    main()
