"""Is the comparison fair? Asked before anything is run and before any number is printed."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from kscout.bench.folder import BenchRun
from kscout.bench.suite import Suite
from kscout.data import KspaceSet, Splits, check_splits
from kscout.data.slices import held_out
from kscout.errors import UserError
from kscout.evaluation import Record, evaluate, positions_in_volumes
from kscout.experiment import Experiment
from kscout.experiment.config import SEARCHES, Training
from kscout.experiment.fitted import FittedRun
from kscout.experiment.progress import progress_bar
from kscout.experiment.run import Method
from kscout.report.table import plural, span
from kscout.sampling import FIXED_MASKS, LEARNED_SAMPLERS, Budget, LearnedSampler
from kscout.sampling.learned import AMPLE_REACH
from kscout.sweep.folder import epochs_done

N_RECOMPUTED = 3
"""Slices of every split and run that are reconstructed once more."""

TOLERANCE = 0.01
"""Relative difference to the kept score that another machine's rounding may make."""

ADAPTIVE_TOLERANCE = 0.1
"""The same where each slice's mask is chosen on the way: rounding may choose another point."""

SCORES = ("nmse_kspace", "nmse", "psnr", "ssim")
"""Metrics that every slice has; those of the foreground are missing where a slice has none."""


class Finding(NamedTuple):
    """What was checked, and what was found."""

    check: str
    found: str


class Checked(NamedTuple):
    """What a finished run showed.

    Attributes
    ----------
    epochs : of gradient descent that were done
    n_moved : points that training took and that the mask did not begin with; ``None`` of a mask
        that was not trained, or that every slice has its own of
    n_recomputed : slices that were reconstructed once more
    """

    epochs: int
    n_moved: int | None
    n_recomputed: int


def conditions(splits: Splits) -> Splits:
    """The test conditions, each of which gets a table of its own."""
    return {name: part for name, part in held_out(splits).items() if name != "val"}


def gradient_steps(training: Training, n_slices: int, epochs: int) -> int:
    """Steps of gradient descent in so many epochs over the training slices."""
    return epochs * math.ceil(n_slices / training.batch_size)


def before(suite: Suite, splits: Splits) -> list[Finding]:
    """Everything that can be checked without running anything.

    Returns
    -------
    what was found, in the order of the checks

    Raises
    ------
    UserError
        naming the method, its count and the allowed one
    """
    found = [_equal_tuning(suite), *_separate(suite, splits)]
    budget = Budget.of(splits["train"].shape, **suite.budget.options())
    counted = set()
    epochs: dict[str, set[int]] = {}
    for reconstruction, method, trial, experiment in _first_runs(suite):
        where = f"method '{method}', trial {trial + 1}"
        try:
            made = Method.of(experiment, splits)
            epochs.setdefault(reconstruction, set()).add(_epochs_of(made))
            if made.sampler is not None:  # a search finds its mask when it is run
                check_mask(made.mask(), budget)
                counted.add((method, trial))
                steps = gradient_steps(experiment.training, len(splits["train"]), _epochs_of(made))
                _refuse_out_of_reach(made, experiment.training.mask_learning_rate, steps)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
    found.append(
        Finding(
            "same budget",
            f"{budget.n_samples} of {budget.shape[0]}x{budget.shape[1]} points "
            f"(R = {budget.acceleration:.2f}), {budget.n_acs} of them calibration (ACS): "
            f"{plural(len(counted), 'mask')} counted before anything was run",
        )
    )
    n_slices = len(splits["train"])
    return [*found, *(_training(suite, name, n_slices, epochs[name]) for name in epochs)]


def _first_runs(suite: Suite) -> Iterator[tuple[str, str, int, Experiment]]:
    for reconstruction in suite.reconstructors:
        for method, trials in suite.masks.items():
            for trial in range(len(trials)):
                experiment = suite.experiment(reconstruction, method, trial, suite.seeds[0])
                yield reconstruction, method, trial, experiment


def _equal_tuning(suite: Suite) -> Finding:
    counts = {
        name: len({trial.model_dump_json() for trial in trials})
        for name, trials in suite.masks.items()
    }
    allowed = Counter(counts.values()).most_common(1)[0][0]
    for name, n in counts.items():
        if n != allowed:
            raise UserError(
                f"method '{name}' has {plural(n, 'different trial')}: allowed is {allowed}, as "
                "many as the others have"
            )
        if n != len(suite.masks[name]):
            raise UserError(f"method '{name}' lists a trial twice: allowed are {n} different ones")
    chosen = "the only one" if allowed == 1 else "chosen on validation data, at the first seed"
    return Finding("same tuning", f"{plural(allowed, 'trial')} for every method, {chosen}")


def _separate(suite: Suite, splits: Splits) -> list[Finding]:
    check_splits(splits)
    if suite.n_trials > 1 and not len(splits["val"]):
        raise UserError(
            f"{suite.n_trials} trials are chosen from on validation data, and '{suite.data.kind}' "
            "gives none: valid is data with a val split, or one trial for each method"
        )
    for name, part in conditions(splits).items():
        if len(part) == 1:
            raise UserError(f"'{name}' has 1 slice, over which nothing varies: valid are 2 or more")
    seen: dict[tuple[float, ...], str] = {}
    for name, part in splits.items():
        for mark in _fingerprints(part):
            if seen.setdefault(mark, name) != name:
                raise UserError(f"the same slice of k-space is in both '{seen[mark]}' and '{name}'")
    sizes = ", ".join(
        f"{name} {plural(len(part.volume.unique()), 'scan')} of {plural(len(part), 'slice')}"
        for name, part in splits.items()
        if len(part)
    )
    return [Finding("no scan and no slice in two splits", sizes)]


def _fingerprints(part: KspaceSet) -> Iterator[tuple[float, ...]]:
    """A few sums of every slice that is not empty; scans that differ do not share them."""
    for slices in part.kspace.split(16):
        flat = torch.view_as_real(slices).flatten(1).double()
        ramp = torch.arange(flat.shape[1], dtype=torch.float64)
        sums = torch.stack([flat.square().sum(1), flat.sum(1), flat @ ramp], 1)
        yield from (tuple(row) for row in sums.tolist() if row[0] > 0)


def _training(suite: Suite, reconstruction: str, n_slices: int, epochs: set[int]) -> Finding:
    """How a reconstructor is trained.

    Parameters
    ----------
    epochs : that its masks will have; none for a fixed mask where no weight is trained
    """
    training = suite.training_of(reconstruction)
    steps = gradient_steps(training, n_slices, training.epochs)
    said = "no gradient descent"
    if training.epochs:
        said = (
            f"{plural(training.epochs, 'epoch')} of {plural(n_slices, 'slice')} in batches of "
            f"{training.batch_size} ({plural(steps, 'step')}), "
            f"rate {training.learning_rate:g}, {training.mask_learning_rate:g} of masks"
        )
    if training.finish == "closed_form":
        said += (
            "; the weights are fitted in closed form to the final mask, so that fixed masks "
            "need no epochs"
        )
    whose = "every mask" if len(epochs) == 1 else "every mask that is trained by gradient"
    return Finding(f"same training: {reconstruction}", f"{said}; the same for {whose}")


def check_mask(mask: Tensor, budget: Budget) -> None:
    """Raise ``UserError``, with both counts, unless a mask spends exactly its budget."""
    n = int(mask.sum())
    if n != budget.n_samples:
        raise UserError(f"the mask acquires {n} points: allowed is {budget.n_samples}")
    n_absent = int((budget.acs & ~mask.cpu()).sum())
    if n_absent:
        raise UserError(
            f"the mask lacks {n_absent} of the {budget.n_acs} points of the ACS: allowed is 0"
        )


def after(
    suite: Suite, runs: Sequence[BenchRun], splits: Splits, console: Console
) -> list[Finding]:
    """Everything that finished runs must show, trials that were not chosen included.

    Returns
    -------
    what was found, in the order of the checks

    Raises
    ------
    UserError
        naming the run, and what is wrong with it
    """
    checked: dict[BenchRun, Checked] = {}
    with progress_bar(console, "audit") as show:
        for i, run in enumerate(runs):
            try:
                checked[run] = _check_run(run, splits)
            except UserError as error:
                raise UserError(f"audit: {run.label}: {error}") from error
            show("runs", i + 1, len(runs))
    n_records = sum(len(part) for part in held_out(splits).values())
    n_recomputed = sum(found.n_recomputed for found in checked.values())
    epochs = _told((f"{run.reconstruction}, {_how(run)}", c.epochs) for run, c in checked.items())
    moved = _told(
        (f"{run.method} with {run.reconstruction}", found.n_moved)
        for run, found in checked.items()
        if found.n_moved is not None
    )
    return [
        Finding("masks as tested", f"{len(runs)} kept masks are binary and spend the budget"),
        Finding("every slice scored", f"{n_records} slices, once by each run, all scores finite"),
        Finding("epochs of gradient descent done", epochs),
        *([Finding("points that training moved", moved)] if moved else []),
        Finding(
            "mask and network belong together",
            f"{n_recomputed} scores found again with the kept network and the kept binary mask of "
            "its run",
        ),
    ]


def _check_run(run: BenchRun, splits: Splits) -> Checked:
    method, scored = Method.of(run.experiment, splits), held_out(splits)
    if run.folder.experiment().digest() != run.experiment.digest():
        raise UserError("config.yaml is another experiment's")
    _check_kept_mask(run, method)
    records = run.records()
    _check_records(records, scored)
    epochs = _check_epochs(run, method)
    steps = gradient_steps(run.experiment.training, len(splits["train"]), epochs)
    return Checked(epochs, points_moved(run, method, steps), _check_scores(run, records, scored))


def _how(run: BenchRun) -> str:
    """How the mask of a run came about."""
    kind = run.experiment.sampler.kind
    if kind in SEARCHES:
        return "masks searched for"
    return "masks learned by gradient" if kind in LEARNED_SAMPLERS else "fixed masks"


def _told(counts: Iterable[tuple[str, int]]) -> str:
    """``who: 3 to 5; other: 0``, the range of each one's counts."""
    found: dict[str, set[int]] = {}
    for who, count in counts:
        found.setdefault(who, set()).add(count)
    return "; ".join(f"{who}: {span(values)}" for who, values in found.items())


def _check_kept_mask(run: BenchRun, method: Method) -> None:
    array = np.load(run.folder.path / "mask.npy", mmap_mode="r", allow_pickle=False)
    if array.dtype != bool or array.shape != method.budget.shape:
        raise UserError(
            f"mask.npy is {array.dtype} {array.shape}: allowed is bool {method.budget.shape}"
        )
    mask = run.folder.mask()
    check_mask(mask, method.budget)
    if run.experiment.sampler.kind in FIXED_MASKS and not torch.equal(mask, method.mask()):
        raise UserError("mask.npy is not the mask that its settings make")


def _check_records(records: Sequence[Record], scored: Splits) -> None:
    """Whether every slice of every scored split is there once, with finite scores."""
    found = Counter((r["split"], r["volume"], r["slice"]) for r in records)
    wanted = Counter(place for name, part in scored.items() for place in _places(name, part))
    if found != wanted:
        absent, extra = sum((wanted - found).values()), sum((found - wanted).values())
        raise UserError(
            f"records.csv lacks {plural(absent, 'slice')} and has {extra} that are none of the "
            f"data's, or stand twice: allowed are all {len(wanted)}, once each"
        )
    for record in records:
        wrong = [name for name in SCORES if not math.isfinite(record[name])]
        if wrong or record["nmse"] <= 0 or record["nmse_kspace"] <= 0:
            name = wrong[0] if wrong else "nmse"
            raise UserError(
                f"{name} of slice {record['slice']} of volume {record['volume']} "
                f"({record['split']}) is {record[name]}: allowed are finite scores"
            )


def _places(name: str, part: KspaceSet) -> Iterator[tuple[str, int, int]]:
    volumes = part.volume.tolist()
    for volume, position in zip(volumes, positions_in_volumes(volumes), strict=True):
        yield name, volume, position


def _check_epochs(run: BenchRun, method: Method) -> int:
    """The epochs of gradient descent that were done; ``UserError`` if others were asked for."""
    wanted = _epochs_of(method)
    done, patience = epochs_done(run.folder.path), run.experiment.training.patience
    if done != wanted and (patience is None or not 0 < done < wanted):
        raise UserError(f"{plural(done, 'epoch')} done: allowed is {wanted}")
    return done


def _epochs_of(method: Method) -> int:
    """Of gradient descent that a run will have: none where it would have nothing to train."""
    is_trained = any(True for _ in method.reconstructor.parameters())
    return method.epochs if is_trained or isinstance(method.sampler, LearnedSampler) else 0


def points_moved(run: BenchRun, method: Method, steps: int) -> int | None:
    """Points that the mask did not begin with; ``UserError`` if none, as none could be reached.

    Training that may move points and moves none has found nothing: told, and no breach.

    Parameters
    ----------
    method : that the run began from
    steps : of gradient descent that were done

    Returns
    -------
    ``None`` of a mask that was not trained, or that every slice has its own of
    """
    sampler = method.sampler
    if not isinstance(sampler, LearnedSampler) or sampler.adaptive:
        return None
    n_moved = int((run.folder.mask() & ~method.mask()).sum())
    if n_moved == 0:
        _refuse_out_of_reach(method, run.experiment.training.mask_learning_rate, steps)
    return n_moved


def _refuse_out_of_reach(method: Method, rate: float, steps: int) -> None:
    """``UserError`` for a learned mask that so few steps at that rate cannot change."""
    sampler = method.sampler
    if not isinstance(sampler, LearnedSampler) or sampler.adaptive:
        return
    gap = sampler.first_gap()
    if rate * steps < gap < math.inf:
        raise UserError(
            "training moves no point, so that the mask is the fixed one that it began from: a "
            f"mask_learning_rate of {rate:g} over {plural(steps, 'step')} cannot reach any: valid "
            f"is mask_learning_rate x steps of {gap:.2g} or more, better of {AMPLE_REACH:g}"
        )


def _check_scores(run: BenchRun, records: Sequence[Record], scored: Splits) -> int:
    """Reconstruct a few slices again, with the network and the mask that were kept."""
    fitted = FittedRun.load(run.folder.path)
    tolerance = ADAPTIVE_TOLERANCE if fitted.sampler.adaptive else TOLERANCE
    kept = {(r["split"], r["volume"], r["slice"]): r for r in records}
    n = 0
    for split, part in scored.items():
        index = evenly(len(part), N_RECOMPUTED)
        data = part.select(index).with_coil_scale(fitted.coil_scale)
        again = evaluate(fitted.sampler, fitted.reconstructor, data, split=split, batch_size=1)
        places = list(_places(split, part))
        for i, record in zip(index, again, strict=True):
            _refuse_unlike(kept[places[i]], record, tolerance)
        n += len(index)
    return n


def _refuse_unlike(kept: Record, again: Record, tolerance: float) -> None:
    for name in ("nmse_kspace", "nmse"):
        then, now = kept[name], again[name]
        if abs(now - then) > tolerance * then:
            raise UserError(
                f"{name} of slice {kept['slice']} of volume {kept['volume']} ({kept['split']}) is "
                f"kept as {then:.4g}, and its network with its mask gives {now:.4g}: they do not "
                "belong together"
            )


def evenly(n: int, most: int) -> list[int]:
    """At most ``most`` places of ``n``, evenly spread."""
    return sorted({round(x) for x in np.linspace(0, n - 1, min(n, most)).tolist()})
