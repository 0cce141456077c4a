"""Policies: what each unit is worth to a slice at the moment. The dearest one left is acquired."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from kscout.acquisition.process import Process, State
from kscout.errors import UserError


class Policy(Protocol):
    """Ranks the units of every slice of a batch."""

    def preferences(self, state: State) -> Tensor:
        """Float ``(batch, unit)``; what it says of units that have been acquired is ignored."""


def choose(policy: Policy, state: State) -> Tensor:
    """The preferred unit of those left, int64 ``(batch,)``; of equals the lower index.

    Raises
    ------
    UserError
        if the policy's preferences have another shape, or are NaN
    """
    preferred = policy.preferences(state).to(state.acquired.device)
    name = type(policy).__name__
    if preferred.shape != state.acquired.shape:
        raise UserError(
            f"{name} has preferences of shape {tuple(preferred.shape)}: valid is "
            f"{tuple(state.acquired.shape)}, (batch, unit)"
        )
    if (preferred.isnan() & ~state.acquired).any():
        raise UserError(f"{name} has preferences that are NaN: valid are numbers, or infinity")
    return preferred.masked_fill(state.acquired, -torch.inf).argmax(1)


class RandomPolicy:
    """Any unit left, each as likely."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def preferences(self, state: State) -> Tensor:
        return torch.rand(state.acquired.shape, generator=self.generator)


class LowFrequencyRandomPolicy:
    r"""Any unit left, with a chance in proportion to :math:`(1 - r)^p`, r the distance from DC.

    Parameters
    ----------
    distance : float ``(unit,)``, r, 1 at the middle of an edge
    power : p
    """

    def __init__(self, distance: Tensor, seed: int, power: float = 3.0) -> None:
        self.log_odds = power * (1 - distance).clamp_min(1e-6).log()
        self.generator = torch.Generator().manual_seed(seed)

    def preferences(self, state: State) -> Tensor:
        # the first of exponential clocks to ring, in the logarithm: a draw by the odds
        clock = torch.empty(state.acquired.shape).exponential_(generator=self.generator)
        return self.log_odds - clock.log()


@dataclass(frozen=True)
class OrderPolicy:
    """The same order for every slice.

    Attributes
    ----------
    order : units, the first to be acquired first; units that it leaves out come last, the lower
        index first
    """

    order: Sequence[int]

    def preferences(self, state: State) -> Tensor:
        n_units = state.acquired.shape[1]
        if sorted(set(self.order)) != sorted(self.order) or not all(
            0 <= unit < n_units for unit in self.order
        ):
            raise UserError(
                f"an order of {len(self.order)} units: valid is each of 0 to {n_units - 1} once at "
                "most"
            )
        rank = torch.full((n_units,), -float(n_units))
        rank[torch.tensor(list(self.order), dtype=torch.int64)] = -torch.arange(
            len(self.order), dtype=torch.float32
        )
        return rank.expand(state.acquired.shape)


def low_to_high(distance: Tensor) -> OrderPolicy:
    """Outwards from DC; of two units as far, that of the lower index first: both sides in turn."""
    return OrderPolicy(distance.argsort(stable=True).tolist())


def one_side_first(n_units: int) -> OrderPolicy:
    """Lines by index from the first to the last, as a scan that goes through k-space once."""
    return OrderPolicy(range(n_units))


class OraclePolicy:
    """The unit that makes the score better by most, which only the fully sampled slice can tell.

    The one-step oracle: greedy, not the best sequence.

    Parameters
    ----------
    process : of the very slices that it will be asked about
    """

    def __init__(self, process: Process) -> None:
        self.process = process

    def preferences(self, state: State) -> Tensor:
        gain = torch.full(state.acquired.shape, -torch.inf, dtype=torch.float64)
        tried = (~state.acquired).nonzero()
        for part in tried.split(self.process.at_once):
            row, unit = part.unbind(1)
            acquired = state.acquired[row].scatter(1, unit[:, None], True)
            score = self.process.observe(state.index[row.cpu()], acquired).score
            gain[row.cpu(), unit.cpu()] = (self.process.sign * score).cpu()
        return gain


def greedy_order(
    process: Process,
    n_slices: int,
    seed: int,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> OrderPolicy:
    """The order learned from training slices: at each step the unit that helps most of them most.

    It does not look at the slice, and is what an adaptive policy must beat. Each step is the best
    next one, which need not make the best order.

    Parameters
    ----------
    process : of training slices
    n_slices : how many of them, at random; at most all
    advance : called with (steps done, all steps)
    """
    generator = torch.Generator().manual_seed(seed)
    index = torch.randperm(len(process.data), generator=generator)[:n_slices]
    oracle, acquired, order = OraclePolicy(process), process.initial.clone(), list[int]()
    while len(order) < process.budget:
        gain = torch.zeros(process.units.n, dtype=torch.float64)
        for part in index.split(process.at_once):
            state = process.observe(part, acquired.expand(len(part), -1))
            gain += oracle.preferences(state).sum(0)
        order.append(int(gain.argmax()))
        acquired[order[-1]] = True
        advance(len(order), process.budget)
    return OrderPolicy(order)
