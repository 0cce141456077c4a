"""From a data source and a reconstructor to the processes and environments of acquisition."""

import inspect
from numbers import Integral
from pathlib import Path
from typing import Any

import torch

from kscout.acquisition.env import (
    AcquisitionEnv,
    AcquisitionVectorEnv,
    Reward,
    Split,
    initial_lines,
)
from kscout.acquisition.process import Metric, Process, check_scan
from kscout.data import DATA, Splits
from kscout.errors import UserError
from kscout.experiment.config import check, options_of
from kscout.experiment.fitted import FittedRun, rescaled
from kscout.recon import RECONSTRUCTORS, Reconstructor
from kscout.sampling.units import UnitKind, Units


def processes(
    splits: Splits,
    *,
    units: UnitKind = "lines",
    tile: tuple[int, int] = (4, 4),
    scenario: str | None = None,
    n_initial: int | None = None,
    budget: int | None = None,
    metric: Metric = "nmse",
    reconstructor: Reconstructor | str | Path | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> dict[str, Process]:
    """The acquisition of every split that holds slices.

    Parameters
    ----------
    units, tile : what an action acquires
    scenario : ``normal`` or ``extreme``, lines to begin with; in place of ``n_initial``
    n_initial : units to begin with, 2 by default
    budget : actions; by default up to a quarter of all units
    metric : that rewards are of
    reconstructor : one, or the folder of a finished run; by default SPIRiT by conjugate gradients
        with a kernel from the training slices, which serves any number of units
    seed : of what is drawn to calibrate it
    device : where to compute

    Raises
    ------
    UserError
        if a folder holds no finished run, or what was asked for does not fit the data
    """
    train = splits["train"]
    chosen = Units.of(train.shape, units, tile)
    n_initial, budget = n_initial_and_budget(chosen, units, scenario, n_initial, budget)
    if reconstructor is None:
        net: Reconstructor = RECONSTRUCTORS["cg_spirit"](train.n_coils, seed)
        net.calibrate(train.kspace, train.target, train.coil_scale, seed)
    elif isinstance(reconstructor, Reconstructor):
        net = reconstructor
    else:
        if not isinstance(reconstructor, str | Path):
            raise UserError(
                f"reconstructor {reconstructor!r}: valid is one of kscout.recon that was made, or "
                "the folder of a finished run"
            )
        folder = Path(reconstructor)
        fitted = FittedRun.load(folder)
        net = fitted.reconstructor
        splits = {name: rescaled(part, fitted, folder) for name, part in splits.items()}
    return {
        name: Process(
            part,
            net,
            units=chosen,
            n_initial=n_initial,
            budget=budget,
            metric=metric,
            device=device,
        )
        for name, part in splits.items()
        if len(part)
    }


def n_initial_and_budget(
    units: Units, kind: UnitKind, scenario: str | None, n_initial: int | None, budget: int | None
) -> tuple[int, int]:
    """What of :func:`processes` was left to be worked out."""
    if scenario is not None:
        if n_initial is not None or kind != "lines":
            raise UserError("scenario gives initial lines: valid is without n_initial, with lines")
        n_initial = initial_lines(scenario, units.n)
    n_initial = 2 if n_initial is None else n_initial
    budget = max(1, round(units.n / 4) - n_initial) if budget is None else budget
    check_scan(units, n_initial, budget)
    return n_initial, budget


def make(
    source: str,
    *,
    split: Split = "train",
    reward: Reward = "gain",
    render_mode: str | None = None,
    data: dict[str, Any] | None = None,
    **options: Any,
) -> AcquisitionEnv:
    """One slice at a time; what ``gymnasium.make`` calls.

    Parameters
    ----------
    source : of :data:`kscout.data.DATA`
    data : its options
    options : of :func:`processes`
    """
    return AcquisitionEnv(_processes(source, data, options), reward, split, render_mode)


def make_vector(
    source: str,
    num_envs: int = 1,
    *,
    split: Split = "train",
    reward: Reward = "gain",
    render_mode: None = None,
    data: dict[str, Any] | None = None,
    **options: Any,
) -> AcquisitionVectorEnv:
    """A batch of slices on tensors; what ``gymnasium.make_vec`` calls."""
    if render_mode is not None:
        raise UserError("a batch draws no pictures: valid is render_mode None")
    return AcquisitionVectorEnv(_processes(source, data, options), num_envs, reward, split)


def _processes(
    source: str, data: dict[str, Any] | None, options: dict[str, Any]
) -> dict[str, Process]:
    if source not in DATA:
        raise UserError(f"data '{source}' is not known: valid is {', '.join(DATA)}")
    of_data = check(options_of(DATA[source]), data or {}, "data").options()
    valid = [name for name in inspect.signature(processes).parameters if name != "splits"]
    if unknown := [name for name in options if name not in valid]:
        raise UserError(
            f"{', '.join(unknown)} is not known: valid is data, reward, split, {', '.join(valid)}"
        )
    _refuse_odd_types(options)
    return processes(DATA[source](**of_data), **options)


def _refuse_odd_types(options: dict[str, Any]) -> None:
    for name in ("n_initial", "budget", "seed"):
        value = options.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, Integral)):
            raise UserError(f"{name} is {value!r}: valid is a whole number")
    tile = options.get("tile")
    if tile is not None:
        if options.get("units") != "tile":
            raise UserError("tile is for units='tile': valid is to leave it out")
        sizes = tile if isinstance(tile, (tuple, list)) else ()
        if len(sizes) != 2 or not all(isinstance(size, Integral) for size in sizes):
            raise UserError(f"tile is {tile!r}: valid are two whole numbers, such as (4, 4)")
