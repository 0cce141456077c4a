"""What a suite found, as one document of plain values: the source of every table and picture."""

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kscout import __version__
from kscout.bench.audit import Finding, conditions, gradient_steps
from kscout.bench.certificate import Bounds
from kscout.bench.folder import WHERE, BenchRun
from kscout.bench.suite import Suite
from kscout.bench.swapped import MOST_SLICES, Table
from kscout.data import Splits
from kscout.errors import UserError
from kscout.evaluation import METRICS, Record
from kscout.experiment.config import SEARCHES
from kscout.report.table import FEW_SCANS
from kscout.statistics import (
    Difference,
    Floats,
    best_of,
    difference_db,
    mean_over_slices,
    paired,
)
from kscout.sweep.folder import epochs_done

Document = dict[str, Any]
Runs = Sequence[BenchRun]

BESIDE = ("psnr", "ssim")
"""Metrics shown beside the suite's own; more is better."""

SCHEMA = 4
"""Of the document: another number where what it holds means something else."""


@dataclass(frozen=True)
class Evidence:
    """Everything that has been run and found, before it is compared.

    Attributes
    ----------
    tried : runs of all trials at the first seed
    validation : validation error of each of them, by folder
    tested : runs of the chosen trials at all seeds
    first : those of them at the first seed
    splits : the data of all of them
    findings : of the audit
    swapped, bounds : what those modules worked out of ``first``
    """

    tried: Runs
    validation: Mapping[Path, float | None]
    tested: Runs
    first: Runs
    splits: Splits
    findings: Sequence[Finding]
    swapped: Table
    bounds: Bounds


def document(suite: Suite, evidence: Evidence, command: str) -> Document:
    """All numbers of a suite. What takes time stands under ``seconds``, and nothing else varies.

    Parameters
    ----------
    command : that the results say they come from

    Returns
    -------
    plain values that strict JSON can hold
    """
    n_train, test = len(evidence.splits["train"]), evidence.splits["test"]
    tested = {name: _by_method(evidence.tested, name) for name in suite.reconstructors}
    return {
        "schema": SCHEMA,
        "suite": suite.name,
        "question": suite.question,
        "command": command,
        "versions": _versions(),
        "metric": suite.metric,
        "seeds": suite.seeds,
        "data": suite.data.model_dump(mode="json"),
        "budget": _budget(suite, evidence),
        "methods": {name: _method(suite, name) for name in suite.masks},
        "reconstructors": {name: _reconstructor(suite, name) for name in suite.reconstructors},
        "audit": [finding._asdict() for finding in evidence.findings],
        "tuning": _tuning(suite, evidence),
        "results": _results(suite, evidence),
        "same_masks": _same_masks(evidence),
        "swapped": {"n_slices": min(MOST_SLICES, len(test)), "mean": evidence.swapped},
        "certificate": evidence.bounds,
        "work": _of_each(tested, lambda runs: _work(runs, n_train)),
        "seconds": _of_each(tested, _median_seconds),
    }


def refuse_results_of_another(path: Path, suite: Suite) -> None:
    """Raise ``UserError`` if a file of this name holds the results of another suite.

    As the runs, results may grow by methods, reconstructors and seeds. One that cannot be read is
    of none.
    """
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        same = {"metric": suite.metric, "data": suite.data.model_dump(mode="json")}
        grown = {
            "methods": {name: _method(suite, name) for name in suite.masks},
            "reconstructors": {name: _reconstructor(suite, name) for name in suite.reconstructors},
        }
        changed = [key for key, value in same.items() if before[key] != value]
        changed += [
            key
            for key, entries in grown.items()
            if any(entries.get(name) != entry for name, entry in before[key].items())
        ]
        changed += [] if set(before["seeds"]) <= set(suite.seeds) else ["seeds"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return
    if changed:
        raise UserError(
            f"{path} holds results of another suite of this name ({', '.join(changed)} differ): "
            "choose another --results, or remove it"
        )


def _method(suite: Suite, name: str) -> Document:
    trials = [trial.model_dump(mode="json", exclude_unset=True) for trial in suite.masks[name]]
    return {"learned": suite.learned(name), "trials": trials}


def _reconstructor(suite: Suite, name: str) -> Document:
    return {
        "reconstructor": suite.reconstructors[name].reconstructor.model_dump(mode="json"),
        "training": suite.training_of(name).model_dump(mode="json"),
    }


def _of_each(
    tested: Mapping[str, Mapping[str, Runs]], told: Callable[[Runs], Any]
) -> dict[str, dict[str, Any]]:
    """What is told of the runs of every method with every reconstructor."""
    return {
        name: {method: told(runs) for method, runs in methods.items()}
        for name, methods in tested.items()
    }


def _median_seconds(runs: Runs) -> float:
    return float(np.median([run.folder.results()["seconds"] for run in runs]))


def _work(runs: Runs, n_slices: int) -> Document:
    """What was done in the runs of a method: steps of each, and the extent of a search.

    And the points that the mask did not begin with, ``None`` of each mask that was not trained by
    gradient; none at all where every slice has a mask of its own.
    """
    sampler, training = runs[0].experiment.sampler, runs[0].experiment.training
    counts = {
        name.removeprefix("n_"): value
        for name, value in sampler.options().items()
        if name.startswith("n_")
    }
    found = [run.folder.results() for run in runs]
    return {
        "gradient_steps": [
            gradient_steps(training, n_slices, epochs_done(run.folder.path)) for run in runs
        ],
        "search": counts if sampler.kind in SEARCHES else None,
        "closed_form": "closed_form" in (training.start, training.finish),
        "n_points_changed": [one["n_points_changed"] for one in found if not one["adaptive"]],
    }


def _versions() -> dict[str, str]:
    import torch

    return {
        "kscout": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def _budget(suite: Suite, evidence: Evidence) -> Document:
    found = evidence.first[0].folder.results()
    kept = {key: found[key] for key in ("shape", "n_samples", "n_acs", "acceleration")}
    return {"asked": suite.budget.model_dump(mode="json", exclude_none=True), **kept}


def _tuning(suite: Suite, evidence: Evidence) -> Document:
    """Of every pair, the validation error of each trial and the number of the one tested."""
    tested = {(run.reconstruction, run.method): run.trial for run in evidence.tested}
    return {
        name: {
            method: {
                "validation": [evidence.validation[run.folder.path] for run in runs],
                "chosen": tested[name, method],
            }
            for method, runs in _by_method(evidence.tried, name).items()
        }
        for name in suite.reconstructors
    }


def _by_method(runs: Runs, reconstruction: str) -> dict[str, list[BenchRun]]:
    found: dict[str, list[BenchRun]] = {}
    for run in runs:
        if run.reconstruction == reconstruction:
            found.setdefault(run.method, []).append(run)
    return found


def _results(suite: Suite, evidence: Evidence) -> Document:
    results: Document = {}
    for name in suite.reconstructors:
        records = {
            method: [run.records() for run in runs]
            for method, runs in _by_method(evidence.tested, name).items()
        }
        results[name] = {
            split: compared(suite, records, split) for split in conditions(evidence.splits)
        }
    return results


def _same_masks(evidence: Evidence) -> Document:
    """Of every reconstruction, groups of methods with one mask at the first seed."""
    groups: dict[str, dict[bytes, list[str]]] = {}
    for run in evidence.first:
        masks = groups.setdefault(run.reconstruction, {})
        masks.setdefault(run.folder.mask().numpy().tobytes(), []).append(run.method)
    return {name: [g for g in masks.values() if len(g) > 1] for name, masks in groups.items()}


def compared(
    suite: Suite, records: Mapping[str, Sequence[Sequence[Record]]], split: str
) -> Document:
    """All methods with one reconstructor on one test condition, the lowest mean error first.

    Parameters
    ----------
    records : of every method, one sequence for each seed
    split : the test condition

    Returns
    -------
    counts of slices and scans, the best fixed mask, and a row for every method: its difference to
    the best fixed mask and, if learned, to every other one; and to the best in other metrics
    """
    sorted_ = {
        method: [_of_split(part, split) for part in seeds] for method, seeds in records.items()
    }
    places = next(iter(sorted_.values()))[0]
    volumes = [record["volume"] for record in places]
    scores = {method: _scores(seeds) for method, seeds in sorted_.items()}
    errors = {method: found[suite.metric] for method, found in scores.items()}
    fixed = [method for method in suite.masks if not suite.learned(method)]
    best = best_of(errors, fixed)
    rows: Document = {}
    for method in sorted(errors, key=lambda name: float(errors[name].mean())):
        means = {
            metric: mean_over_slices(values, volumes)._asdict()
            for metric, values in scores[method].items()
            if np.isfinite(values).all()
        }
        row: Document = {"learned": method not in fixed, "means": means}
        if method != best:
            row |= _difference(errors[method], errors[best], volumes)
        if method not in fixed:
            row["by_metric"] = {
                metric: _told(paired(values - scores[best][metric], volumes), volumes)
                for metric, values in scores[method].items()
                if metric in BESIDE
            }
            row["others"] = {
                other: _difference(errors[method], errors[other], volumes)
                for other in fixed
                if other != best
            }
        rows[method] = row
    n_volumes = len(set(volumes))
    return {
        "n_slices": len(volumes),
        "n_volumes": n_volumes,
        "is_few": n_volumes < FEW_SCANS,
        "best_fixed": best,
        "methods": rows,
    }


def _difference(method: Floats, baseline: Floats, volumes: Sequence[int]) -> Document:
    return _told(difference_db(method, baseline, volumes), volumes)


def _told(found: Difference, volumes: Sequence[int]) -> Document:
    numbers = {**found._asdict(), "by_seed": list(found.by_seed)}
    is_one_scan = len(set(volumes)) == 1  # of which the slices say nothing of others
    verdict = "not distinguishable" if is_one_scan else found.verdict
    return {"difference": numbers, "verdict": verdict}


def _of_split(records: Sequence[Record], split: str) -> list[Record]:
    """Its records in an order that all runs share, so that slices can be paired."""
    part = [record for record in records if record["split"] == split]
    return sorted(part, key=lambda record: [record[key] for key in WHERE])


def _scores(seeds: Sequence[Sequence[Record]]) -> dict[str, Floats]:
    """Of every metric, float64 ``(seed, slice)``."""
    return {
        metric: np.array([[record[metric] for record in part] for part in seeds])
        for metric in METRICS
    }
