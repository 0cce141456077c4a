"""Policies by name: those that need no training of their own, and those that learn.

To add one that needs none, write a function of (training process, process that is judged, seed) and
add it to ``POLICIES``, and to ``ROLES`` unless it looks at the slice; to add one that learns, write
a :class:`Learner` and add it to ``LEARNERS``.
Keyword-only arguments are what a configuration may set.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from kscout.acquisition.ddqn import Ddqn
from kscout.acquisition.evaluator import Evaluator
from kscout.acquisition.gradient import PolicyGradient
from kscout.acquisition.learner import Learner
from kscout.acquisition.policies import (
    LowFrequencyRandomPolicy,
    OraclePolicy,
    OrderPolicy,
    Policy,
    RandomPolicy,
    greedy_order,
    low_to_high,
    one_side_first,
)
from kscout.acquisition.process import Process
from kscout.errors import UserError
from kscout.sampling import Budget, StagedSampler
from kscout.sampling.learned import Init, Noise


def _random(train: Process, judged: Process, seed: int) -> Policy:
    return RandomPolicy(seed)


def _low_frequency_random(
    train: Process, judged: Process, seed: int, *, power: Annotated[float, Field(ge=0)] = 3.0
) -> Policy:
    return LowFrequencyRandomPolicy(train.units.distance, seed, power)


def _in_order(
    train: Process,
    judged: Process,
    seed: int,
    *,
    direction: Literal["low_to_high", "one_side_first"] = "low_to_high",
    units: list[Annotated[int, Field(ge=0)]] | None = None,
) -> Policy:
    if units is not None:
        if len(set(units)) < len(units) or max(units, default=0) >= train.units.n:
            raise UserError(
                f"an order of units {units}: valid is each of 0 to {train.units.n - 1} once at most"
            )
        return OrderPolicy(units)
    if direction == "one_side_first":
        return one_side_first(train.units.n)
    return low_to_high(train.units.distance)


def _oracle(train: Process, judged: Process, seed: int) -> Policy:
    return OraclePolicy(judged)


POLICIES: dict[str, Callable[..., Policy]] = {
    "random": _random,
    "low_frequency_random": _low_frequency_random,
    "order": _in_order,
    "oracle": _oracle,
}

LEARNERS: dict[str, Callable[..., Learner]] = {
    "ddqn": Ddqn,
    "evaluator": Evaluator,
    "policy_gradient": PolicyGradient,
}

GREEDY_ORDER = "greedy_order"
"""Kind of the fixed order that is learned from training slices."""


def learned_order(
    train: Process,
    seed: int,
    *,
    n_slices: Annotated[int, Field(ge=1, description="of training, drawn")] = 512,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> OrderPolicy:
    """:func:`greedy_order` with the options of a configuration."""
    return greedy_order(train, n_slices, seed, advance=advance)


STAGED = "staged"
"""Kind of the sampler that is trained end to end with a reconstructor of its own."""


def staged_sampler(
    train: Process,
    seed: int,
    *,
    n_channels: Annotated[int, Field(ge=1, description="of the policy")] = 16,
    init: Init = "variable_density",
    noise: Noise = 0.05,
) -> StagedSampler:
    """One stage for every action; lines or points.

    Raises
    ------
    UserError
        if the units are tiles, or there are fewer than two actions
    """
    shape, n_initial = train.data.shape, train.n_initial
    unit = train.units.kind
    if unit == "tile":
        raise UserError("a staged policy acquires lines or points: valid is scan.units of these")
    if train.budget < 2:
        raise UserError("a staged policy with a budget of 1 never looks: valid is 2 or more")
    plane = train.units.mask(train.initial[None].cpu())[0, 0].bool()
    n_units = n_initial + train.budget
    budget = Budget(shape, n_units * (shape[0] if unit == "lines" else 1), plane)
    options: dict[str, Any] = {"n_channels": n_channels, "init": init, "noise": noise}
    sampler = StagedSampler(budget, seed, n_stages=train.budget, unit=unit, **options)
    sampler.any_number = True  # what is judged is the curve, not its end
    return sampler


Role = Literal["random", "order", "adaptive", "oracle"]

ROLES: dict[str, Role] = {
    "random": "random",
    "low_frequency_random": "random",
    "order": "order",
    GREEDY_ORDER: "order",
    "oracle": "oracle",
}
"""What a kind is beside others: a fixed order, say. Those left out look at the slice."""


def role(kind: str, options: Mapping[str, Any]) -> Role:
    """Of a policy; one that could look at the slice and does not is an order."""
    return "order" if options.get("sees_slice") is False else ROLES.get(kind, "adaptive")


ENTRIES: dict[str, Callable[..., Any]] = {
    **POLICIES,
    **LEARNERS,
    GREEDY_ORDER: learned_order,
    STAGED: staged_sampler,
}
