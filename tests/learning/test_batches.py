"""Draws of a training: another for every seed and every step, and the same again."""

from itertools import pairwise

import torch

from kscout.learning.batches import step_generator


def test_every_seed_and_step_draws_its_own() -> None:
    places = [(seed, step) for seed in (0, 1, 2, 3, 77, 2**31 - 1) for step in range(50)]
    drawn = [tuple(torch.rand(2, generator=step_generator(*place)).tolist()) for place in places]
    assert len(set(drawn)) == len(places)
    assert drawn == [
        tuple(torch.rand(2, generator=step_generator(*place)).tolist()) for place in places
    ]


def test_the_streams_of_small_seeds_do_not_meet() -> None:
    starts = sorted(step_generator(seed, 0).initial_seed() for seed in range(1000))
    gaps = [b - a for a, b in pairwise(starts)]
    assert min(gaps) > 1_000_000
