"""What was compared, in words: the list at the top of the report."""

from collections.abc import Mapping, Sequence
from typing import Any

from kscout.report import Results, Run
from kscout.report.table import scored_on, splits

Fact = tuple[str, str]
"""A term and what is said of it."""

SCANS = {"n_train": "to train", "n_val": "to validate", "n_test": "to test"}
"""Options of data sources that count the scans of a split."""

MOST_ENTRIES = 4
"""Of a list that are written out."""


def facts(runs: Sequence[Run]) -> list[Fact]:
    """What was compared, from the first finished run that the user named, or any other."""
    finished = sorted((run for run in runs if run.results), key=lambda run: run.path != run.root)
    told: list[Fact] = []
    if finished:
        run, results = finished[0], finished[0].results
        assert results is not None
        settings = run.config()[1]
        told += [*_of_data(_section(settings, "data")), *_of_budget(results)]
        told += _of_training(settings)
        scored = {split: scored_on([run], split) for split in splits(runs)}
        told += [(f"scored on {split}", count) for split, count in scored.items() if count]
    unfinished = len(runs) - len(finished)
    tail = f", {unfinished} unfinished" if unfinished else ""
    return [*told, ("methods", f"{len(finished)} finished{tail}")]


def _of_data(data: Mapping[str, Any]) -> list[Fact]:
    if not data:
        return []
    told = [("data", str(data.get("kind", "-")))]
    scans = [f"{data[key]} {use}" for key, use in SCANS.items() if data.get(key) is not None]
    if scans:
        told.append(("scans", ", ".join(scans)))
    if "snr_db" in data:
        snr = data["snr_db"]
        told.append(("noise", "no noise added" if snr is None else f"added, SNR {snr} dB"))
    elsewhere = {"kind", "snr_db", *SCANS}
    options = [
        f"{key}={_written(value)}"
        for key, value in data.items()
        if key not in elsewhere and value is not None and value != []
    ]
    return [*told, ("data options", ", ".join(options))] if options else told


def _of_budget(results: Results) -> list[Fact]:
    a, b = results.voxel_size
    return [
        ("k-space plane (ky, kx)", f"{results.shape[0]} x {results.shape[1]}"),
        ("pixel size", f"{a:.3g} x {b:.3g} mm"),
        (
            "budget",
            f"{results.n_samples} samples (R={results.acceleration:.2f}), "
            f"{results.n_acs} of them calibration (ACS)",
        ),
    ]


def _of_training(settings: Mapping[str, Any]) -> list[Fact]:
    training = _section(settings, "training")
    keys = ("epochs", "loss", "start", "finish")
    words = [f"{key} {_written(training[key])}" for key in keys if key in training]
    told = [("training", ", ".join(words))] if words else []
    return [*told, ("seed", str(settings["seed"]))] if "seed" in settings else told


def _section(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = settings.get(name)
    return section if isinstance(section, dict) else {}


def _written(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    entries = ", ".join(map(str, value[:MOST_ENTRIES]))
    return f"[{entries}{f' and {len(value) - MOST_ENTRIES} more' * (len(value) > MOST_ENTRIES)}]"
