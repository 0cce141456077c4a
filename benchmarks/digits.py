"""Digits at R = 4: score of the joint training, and its step against plain convolutions.

    python benchmarks/digits.py --mnist mnist.npz

Runs configs/digits.yaml with its learned global mask alone, and times a training step of its stack
against the same stack made of direct convolutions (four real ones for a complex one, as in the
original study). The original code, run again on the same data, ends at an NMSE of 0.0788, 21.20 dB
and an SSIM of 0.688 over the 10,000 test images. Prints one JSON object.
"""

import argparse
import csv
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

import torch
from rich.console import Console
from spirit_step import STEPS, Problem, timed

from kscout.experiment import Experiment, RunFolder, load_experiment, run_experiment

CONFIG = Path(__file__).parent.parent / "configs" / "digits.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(os.environ.get("KSCOUT_TEST_DATA", ".")) / "mnist_uint8.npz"
    parser.add_argument("--mnist", type=Path, default=default, help=".npz or folder of IDX files")
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    experiment = load_experiment(CONFIG, [f"data.path={options.mnist}", "compare={}"])
    with tempfile.TemporaryDirectory() as folder:
        run_experiment(experiment, Path(folder), Console(file=sys.stderr))
        results = RunFolder(Path(folder)).results()
        with (Path(folder) / "metrics.csv").open(newline="") as file:
            seconds_epochs = sum(float(row["seconds"]) for row in csv.DictReader(file))
    summary = results["summary"]["test"]
    seconds = step_seconds(experiment, options.repeats)
    ratio = seconds["reference"] / seconds["kscout"]
    print(
        json.dumps(
            {
                "nmse_kspace": summary["nmse_kspace"]["mean"],
                "psnr": summary["psnr"]["mean"],
                "ssim": summary["ssim"]["mean"],
                "n_test": summary["n_slices"],
                "n_samples": results["n_samples"],
                "original_study": {"nmse_kspace": 0.0788, "psnr": 21.20, "ssim": 0.688},
                "seconds_training": seconds_epochs,
                "seconds_step_kscout": seconds["kscout"],
                "seconds_step_direct_convolution": seconds["reference"],
                "step_ratio": ratio,
                "seconds_training_direct_convolution_extrapolated": ratio * seconds_epochs,
                "n_threads": torch.get_num_threads(),
            }
        )
    )


def step_seconds(experiment: Experiment, repeats: int) -> dict[str, float]:
    """Median seconds of a training step of each way, taking turns."""
    size = argparse.Namespace(
        batch=experiment.training.batch_size,
        coils=1,
        plane=(28, 28),
        kernel_size=experiment.reconstructor.kernel_size,
        blocks=experiment.reconstructor.n_blocks,
        device="cpu",
    )
    problem = Problem(size)
    rounds = [{name: timed(name, problem)[0] for name in STEPS} for _ in range(repeats + 1)][1:]
    return {name: statistics.median(each[name] for each in rounds) for name in STEPS}


if __name__ == "__main__":
    main()
