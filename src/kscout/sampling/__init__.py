"""Samplers: which points of k-space to acquire, to an exact budget.

To add a fixed mask, write a function in ``fixed.py`` and add it to its dict; to add a learned
sampler, write a class in ``learned.py`` and add it to its dict; one that gives every slice its own
mask has a file to itself (``staged.py``), and so has what trains a reconstructor for any number of
points (``any_number.py``). Positional arguments come from the experiment; keyword-only arguments
are what a configuration may set, and their annotations are its validation.
"""

from collections.abc import Callable
from typing import Any

from kscout.sampling.any_number import AnyNumberSampler
from kscout.sampling.base import FixedSampler, Sampler
from kscout.sampling.budget import Budget
from kscout.sampling.fixed import FIXED_MASKS
from kscout.sampling.learned import LEARNED_SAMPLERS as ONE_MASK_SAMPLERS
from kscout.sampling.learned import LearnedSampler
from kscout.sampling.staged import StagedSampler

__all__ = [
    "FIXED_MASKS",
    "LEARNED_SAMPLERS",
    "SAMPLERS",
    "AnyNumberSampler",
    "Budget",
    "FixedSampler",
    "LearnedSampler",
    "Sampler",
    "StagedSampler",
    "build_sampler",
]

LEARNED_SAMPLERS: dict[str, type[LearnedSampler]] = {**ONE_MASK_SAMPLERS, "staged": StagedSampler}
SAMPLERS: dict[str, Callable[..., Any]] = {
    **FIXED_MASKS,
    **LEARNED_SAMPLERS,
    "any_number": AnyNumberSampler,
}


def build_sampler(kind: str, budget: Budget, seed: int, **options: Any) -> Sampler:
    """The sampler of that kind, fixed or learned."""
    made = SAMPLERS[kind](budget, seed, **options)
    return made if isinstance(made, Sampler) else FixedSampler(budget, made)
