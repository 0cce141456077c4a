"""Which trial of every method is tested, with every reconstructor: validation data say."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from kscout.bench.audit import Finding
from kscout.bench.folder import BenchRun, Chosen
from kscout.bench.suite import Suite
from kscout.errors import UserError
from kscout.experiment.config import Options
from kscout.statistics import geometric_mean


def validation_error(suite: Suite, run: BenchRun) -> float | None:
    """Of a run, over validation slices, in the mean of dB that everything is judged by.

    Returns
    -------
    geometric mean error; ``None`` where there are no validation data to choose by
    """
    scores = [r[suite.metric] for r in run.records() if r["split"] == "val"]
    if suite.n_trials > 1 and not scores:
        raise UserError(f"{run.label} has no validation scores: run it again")
    return geometric_mean(np.array(scores)) if scores else None


def choose(tried: Sequence[BenchRun], validation: Mapping[Path, float | None]) -> Chosen:
    """Of every pair the trial with the lowest validation error, the first of equals."""
    chosen: dict[tuple[str, str], BenchRun] = {}
    for run in tried:
        pair = (run.reconstruction, run.method)
        error = validation[run.folder.path]
        best = chosen.get(pair)
        best_error = validation[best.folder.path] if best else None
        if best is None or (error is not None and best_error is not None and error < best_error):
            chosen[pair] = run
    return {pair: run.trial for pair, run in chosen.items()}


def ends_of_grids(suite: Suite, chosen: Chosen) -> list[Finding]:
    """Methods whose tested trial is at the end of what was tried, which is no breach.

    Only those whose trials differ in one number, and not where the option itself ends.

    Returns
    -------
    one finding, or none
    """
    at_end: dict[str, list[str]] = {}
    for (reconstruction, method), trial in chosen.items():
        name = _only_number(suite.masks[method])
        if name is None:
            continue
        values = [getattr(settings, name) for settings in suite.masks[method]]
        if values[trial] in {min(values), max(values)} - _limits(suite.masks[method][0], name):
            tried = ", ".join(f"{value:g}" for value in sorted(values))
            said = f"{method} ({name} {values[trial]:g} of {tried})"
            at_end.setdefault(said, []).append(reconstruction)
    if not at_end:
        return []
    told = "; ".join(f"{said} with {' and '.join(names)}" for said, names in at_end.items())
    return [Finding("chosen at the end of its grid", f"{told}: a wider grid may do better")]


def _only_number(trials: Sequence[Options]) -> str | None:
    """The option that trials differ in; ``None`` if it is no number, or there are several."""
    trees = [trial.model_dump() for trial in trials]
    differ = [name for name in trees[0] if any(t.get(name) != trees[0][name] for t in trees)]
    if len(differ) != 1 or any(type(tree[differ[0]]) not in (int, float) for tree in trees):
        return None
    return differ[0]


def _limits(trial: Options, name: str) -> set[float]:
    """The lowest and the highest value that an option may have, as far as it has any."""
    bounds = type(trial).model_fields[name].metadata
    return {getattr(bound, end) for bound in bounds for end in ("ge", "le") if hasattr(bound, end)}
