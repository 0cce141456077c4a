"""Policies judged: every slice of a set acquired once, and its score after every step."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kscout.acquisition.policies import Policy, choose
from kscout.acquisition.process import Process


@dataclass(frozen=True)
class Rollout:
    """What a policy did with every slice of a set.

    Attributes
    ----------
    scores : float64 ``(slice, step)``; before the first action, and after each
    actions : int64 ``(slice, step)``, one step fewer
    """

    scores: Tensor
    actions: Tensor

    @property
    def area(self) -> Tensor:
        """Mean score over the numbers of units, trapezoids: float64 ``(slice,)``."""
        return torch.trapezoid(self.scores, dim=1) / (self.scores.shape[1] - 1)


def roll_out(
    process: Process,
    policy: Policy,
    batch_size: int = 64,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Rollout:
    """Acquire every slice of the process's set once, in its order; the last batch may be short.

    Parameters
    ----------
    advance : called with (slices done, all slices)
    """
    parts, n_slices = [], len(process.data)
    for index in torch.arange(n_slices).split(batch_size):
        parts.append(roll_out_slices(process, policy, index))
        advance(int(index[-1]) + 1, n_slices)
    return Rollout(torch.cat([p.scores for p in parts]), torch.cat([p.actions for p in parts]))


def roll_out_slices(process: Process, policy: Policy, index: Tensor) -> Rollout:
    """Acquire the slices at ``index``, int64 ``(slice,)``, together."""
    state = process.start(index)
    scores, actions = [state.score], []
    while not process.is_done(state):
        action = choose(policy, state)
        state, _ = process.step(state, action)
        scores.append(state.score)
        actions.append(action)
    return Rollout(torch.stack(scores, 1).cpu(), torch.stack(actions, 1).cpu())
