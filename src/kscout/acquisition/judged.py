"""What roll-outs say of policies: curves, areas, and paired differences."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from kscout.acquisition.process import Process
from kscout.acquisition.rollout import Rollout
from kscout.statistics import Floats, best_of, difference_db, interval, paired

Document = dict[str, Any]


def judged(
    rollouts: Mapping[str, Rollout],
    process: Process,
    orders: Sequence[Sequence[str]],
    references: Sequence[str],
    has_own_reconstructor: Callable[[str], bool] = lambda name: False,
) -> Document:
    """All policies on one split, the best area first.

    Parameters
    ----------
    rollouts : of every policy, on all slices of ``process``
    orders : policies that do not look at the slice and draw nothing: those through the common
        reconstructor, and those through one that was trained with their masks
    references : policies that all others are compared with, besides the best of each group
    has_own_reconstructor : of a policy, which is then compared with the second group's best

    Returns
    -------
    plain values: counts, numbers of units, and for every policy its curve with 95 % intervals over
    scans, its area, and how far it is ahead of each reference: in dB of error, or in the metric
    """
    volumes = process.data.volume.tolist()
    areas = {name: rollout.area.numpy() for name, rollout in rollouts.items()}
    names = sorted(areas, key=lambda name: -process.sign * float(areas[name].mean()))
    best = [_best(areas, group, process.sign) for group in orders]
    compared = list(dict.fromkeys([*references, *(name for name in best if name)]))
    policies: Document = {}
    for name in names:
        curve = np.array([interval(scores, volumes) for scores in rollouts[name].scores.numpy().T])
        policies[name] = {
            "mean": curve[:, 0].tolist(),
            "low": curve[:, 1].tolist(),
            "high": curve[:, 2].tolist(),
            "area": dict(zip(("mean", "low", "high"), interval(areas[name], volumes), strict=True)),
            "best_order": best[has_own_reconstructor(name)],
            "ahead_of": {
                other: _difference(areas[name], areas[other], process.sign, volumes)
                for other in compared
                if other != name
            },
        }
    n_initial = process.n_initial
    return {
        "metric": process.metric,
        "n_slices": len(volumes),
        "n_volumes": len(set(volumes)),
        "n_acquired": list(range(n_initial, n_initial + process.budget + 1)),
        "n_units": process.units.n,
        "best_order": best[0],
        "references": compared,
        "policies": policies,
    }


def _best(areas: Mapping[str, Floats], names: Sequence[str], sign: int) -> str | None:
    """The one that none is ahead of, by the differences that are told."""
    if not names:
        return None
    if sign < 0:
        return best_of({name: areas[name][None] for name in names}, names)
    return max(names, key=lambda name: float(areas[name].mean()))


def _difference(own: Floats, other: Floats, sign: int, volumes: Sequence[int]) -> Document:
    if sign < 0:
        found = difference_db(own[None], other[None], volumes)
    else:
        found = paired((own - other)[None], volumes)
    return {"mean": found.mean, "low": found.low, "high": found.high, "verdict": found.verdict}


def records(name: str, split: str, rollout: Rollout, process: Process) -> list[Document]:
    """One row for every slice and step: what had been acquired last, and the score then."""
    rows = []
    n_initial = process.n_initial
    for i, volume in enumerate(process.data.volume.tolist()):
        actions = [None, *rollout.actions[i].tolist()]
        for step, (action, score) in enumerate(
            zip(actions, rollout.scores[i].tolist(), strict=True)
        ):
            rows.append(
                {
                    "policy": name,
                    "split": split,
                    "volume": volume,
                    "slice": i,
                    "n_acquired": n_initial + step,
                    "unit": action,
                    "score": score,
                }
            )
    return rows
