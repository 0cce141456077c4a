"""What roll-outs say of policies: curves, areas, and paired differences."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from kscout.acquisition.process import Process
from kscout.acquisition.rollout import Rollout
from kscout.statistics import Floats, best_of, difference_db, interval, paired

Document = dict[str, Any]


def judged(
    rollouts: Mapping[str, Sequence[Rollout]],
    process: Process,
    orders: Sequence[Sequence[str]],
    references: Sequence[str],
    has_own_reconstructor: Callable[[str], bool] = lambda name: False,
    trained_once: Collection[str] = (),
) -> Document:
    """All policies on one split, the best area first.

    Parameters
    ----------
    rollouts : of every policy, one for each of its seeds, on all slices of ``process``
    orders : policies that do not look at the slice and draw nothing: those through the common
        reconstructor, and those through one that was trained with their masks
    references : policies that all others are compared with, besides the best of each group
    has_own_reconstructor : of a policy, which is then compared with the second group's best
    trained_once : policies of which no verdict is told, as another seed's training might differ

    Returns
    -------
    plain values: counts, numbers of units, and for every policy its curve with 95 % intervals over
    scans, its area, also of every seed alone, and how far it is ahead of each reference: in dB of
    error, or in the metric
    """
    volumes = process.data.volume.tolist()
    areas = {name: np.stack([r.area.numpy() for r in rolled]) for name, rolled in rollouts.items()}
    names = sorted(areas, key=lambda name: -process.sign * float(areas[name].mean()))
    best = [_best(areas, group, process.sign) for group in orders]
    compared = list(dict.fromkeys([*references, *(name for name in best if name)]))
    policies: Document = {}
    for name in names:
        scores = np.stack([rollout.scores.numpy() for rollout in rollouts[name]]).mean(0)
        curve = np.array([interval(of_step, volumes) for of_step in scores.T])
        policies[name] = {
            "mean": curve[:, 0].tolist(),
            "low": curve[:, 1].tolist(),
            "high": curve[:, 2].tolist(),
            "area": dict(
                zip(("mean", "low", "high"), interval(areas[name].mean(0), volumes), strict=True)
            ),
            "area_by_seed": areas[name].mean(1).tolist(),
            "best_order": best[has_own_reconstructor(name)],
            "ahead_of": {
                other: _difference(
                    areas[name],
                    areas[other],
                    process.sign,
                    volumes,
                    is_told=not {name, other} & set(trained_once),
                )
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
        return best_of(areas, names)
    return max(names, key=lambda name: float(areas[name].mean()))


def _difference(
    own: Floats, other: Floats, sign: int, volumes: Sequence[int], is_told: bool
) -> Document:
    """Paired seed by seed; what has no seeds is the same beside all of them."""
    found = difference_db(own, other, volumes) if sign < 0 else paired(own - other, volumes)
    return {
        "mean": found.mean,
        "low": found.low,
        "high": found.high,
        "by_seed": list(found.by_seed),
        "verdict": found.verdict if is_told else None,
    }


def records(
    name: str, split: str, rollouts: Sequence[Rollout], process: Process, first_seed: int
) -> list[Document]:
    """One row for every seed, slice and step: what had been acquired last, and the score then."""
    return [
        {
            "policy": name,
            "split": split,
            "seed": seed,
            "volume": volume,
            "slice": i,
            "n_acquired": process.n_initial + step,
            "unit": action,
            "score": score,
        }
        for seed, rollout in enumerate(rollouts, first_seed)
        for i, volume in enumerate(process.data.volume.tolist())
        for step, (action, score) in enumerate(
            zip([None, *rollout.actions[i].tolist()], rollout.scores[i].tolist(), strict=True)
        )
    ]
