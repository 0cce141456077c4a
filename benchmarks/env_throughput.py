"""Environment steps per second: 64 slices at a time against one at a time, the same reconstructor.

    python benchmarks/env_throughput.py

Random policy, lines, two initial ones, to R = 4, on digits (28x28, one coil, an untrained U-Net,
whose speed is that of a trained one) and on brains (80x96, 8 coils, SPIRiT by conjugate gradients).
Prints one JSON object; ``ratio`` is that of the digits.
"""

import json
import time
from typing import Any

import torch

from kscout.acquisition.env import AcquisitionEnv, AcquisitionVectorEnv
from kscout.acquisition.policies import RandomPolicy, choose
from kscout.acquisition.process import Process
from kscout.data import DATA, Splits
from kscout.experiment.acquire import processes
from kscout.recon import RECONSTRUCTORS

BATCH, SECONDS = 64, 10.0


def batched(made: dict[str, Process]) -> float:
    env, policy = AcquisitionVectorEnv(made, BATCH), RandomPolicy(0)
    env.reset(seed=0)
    n_steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        _, _, ended, _, _ = env.step(choose(policy, env.state))
        n_steps += BATCH
        if ended.all():
            env.reset()
    return n_steps / (time.perf_counter() - start)


def single(made: dict[str, Process]) -> float:
    env = AcquisitionEnv(made)
    _, info = env.reset(seed=0)
    n_steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        _, _, ended, _, info = env.step(env.action_space.sample(info["action_mask"]))
        n_steps += 1
        if ended:
            _, info = env.reset()
    return n_steps / (time.perf_counter() - start)


def measure(splits: Splits, **options: Any) -> dict[str, float]:
    made = processes(splits, **options)
    many, one = batched(made), single(made)
    return {"batched_steps_per_s": many, "single_steps_per_s": one, "ratio": many / one}


def main() -> None:
    digits = DATA["digits"](n_train=1000, n_val=0, n_test=100)
    brain = DATA["brain"](matrix=(80, 96), slices=(60, 72), n_train=6, n_val=0, n_test=1, snr_db=20)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    unet = RECONSTRUCTORS["coil_unet"](1, 0, n_channels=16, n_levels=3)
    found = {
        "digits": measure(digits, reconstructor=unet, device=device),
        "brain": measure(brain, device=device),
    }
    settings = {"batch": BATCH, "device": device, "threads": torch.get_num_threads()}
    print(json.dumps({"ratio": found["digits"]["ratio"], **settings, **found}))


if __name__ == "__main__":
    main()
