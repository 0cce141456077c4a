"""Acquisition policies trained as a configuration says, and found again."""

import shutil
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console

from kscout.acquisition.learner import Learner, fit
from kscout.acquisition.policies import OrderPolicy, Policy
from kscout.acquisition.process import Process
from kscout.acquisition.registry import (
    GREEDY_ORDER,
    LEARNERS,
    POLICIES,
    STAGED,
    learned_order,
    staged_sampler,
)
from kscout.acquisition.together import PolicySampler, StagedPolicy, fit_together
from kscout.atomic import atomic_path
from kscout.data import Splits
from kscout.errors import UserError
from kscout.experiment.acquire import processes
from kscout.experiment.active import TUNED, Active, ActiveFolder
from kscout.experiment.load import load_splits
from kscout.experiment.progress import progress_bar
from kscout.experiment.run import run_experiment
from kscout.recon import RECONSTRUCTORS

Scans = dict[str, Process]
ShouldStop = Callable[[], bool] | None


class Work(NamedTuple):
    """What all that is done with policies needs."""

    active: Active
    folder: ActiveFolder
    scans: Scans
    console: Console


class Chooser(NamedTuple):
    """A policy, and the acquisition through the reconstructor that belongs to it."""

    policy: Policy
    process: Process


def train_policies(
    active: Active, folder: ActiveFolder, console: Console, should_stop: ShouldStop = None
) -> None:
    """Train the reconstructor, then every policy that learns; what is done is not done again.

    Raises
    ------
    UserError
        if the configuration is impossible or the folder is another's
    Stopped
        if ``should_stop``, asked after every epoch, said so
    """
    folder.refuse_other(active)
    splits = load_splits(active.data, console)
    reconstructor = active.trained_reconstructor(splits)
    if active.run is not None:
        scans_of(active, folder, splits)  # of a run that does not fit nothing is written
    _check(active, splits)
    with folder.claimed(active):
        if active.run is None:
            load = lambda *_: splits  # noqa: E731 (its arguments are of no use)
            run_experiment(
                reconstructor,
                folder.reconstructor.path,
                console,
                load=load,
                should_stop=should_stop,
            )
        work = Work(active, folder, scans_of(active, folder, splits), console)
        jobs = [(name, _train) for name in active.policies if active.learns(name)]
        jobs += [(name, _tune) for name in active.finetune.policies]
        for i, (name, job) in enumerate(jobs):
            said = name if job is _train else f"{name}, fine-tuning"
            console.print(f"[bold]{said}[/] ({i + 1} of {len(jobs)})", highlight=False)
            job(work, name, should_stop)


def scans_of(active: Active, folder: ActiveFolder, splits: Splits) -> Scans:
    """The acquisition of every split, through the trained reconstructor."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    run = active.run or folder.reconstructor.path
    return processes(splits, **active.scan.model_dump(), reconstructor=run, device=device)


def choosers(work: Work, split: str) -> dict[str, Chooser]:
    """All policies, ready to be judged on a split.

    Raises
    ------
    UserError
        if one that learns has not been trained, or for another scan
    """
    active, folder, scans, _ = work
    found = {}
    for name in active.policies:
        found[name] = _chooser(work, name, split)
        if name in active.finetune.policies:
            path = folder.tuned(name)
            state = _read(path, scans["train"], name)
            policy = found[name].policy
            found[name + TUNED] = Chooser(policy, _with(scans[split], state, path))
    return found


def _chooser(work: Work, name: str, split: str) -> Chooser:
    active, folder, scans, _ = work
    config, train, judged = active.policies[name], scans["train"], scans[split]
    path = folder.checkpoint(name)
    if config.kind in LEARNERS:
        learner = _learner(active, name, train)
        _load(learner.network, _read(path, train, name)["policy"], path)
        return Chooser(learner.policy, judged)
    if config.kind == STAGED:
        sampler = staged_sampler(train, active.seed, **config.options())
        state = _read(path, train, name)
        _load(sampler, state["policy"], path)
        policy = StagedPolicy(sampler.to(train.device), train.units)
        return Chooser(policy, _with(judged, state, path))
    if config.kind == GREEDY_ORDER:
        return Chooser(OrderPolicy(_read(path, train, name)["order"]), judged)
    return Chooser(POLICIES[config.kind](train, judged, active.seed, **config.options()), judged)


def _train(work: Work, name: str, should_stop: ShouldStop) -> None:
    active, folder, scans, console = work
    path, train, val = folder.checkpoint(name), scans["train"], scans.get("val")
    if path.exists():
        return
    config = active.policies[name]
    if config.kind == GREEDY_ORDER:
        with progress_bar(console, name) as show:
            policy = learned_order(
                train, active.seed, **config.options(), advance=partial(show, "steps")
            )
        _save(path, train, order=list(policy.order))
        return
    shown: dict[str, Any] = {"progress": console.is_terminal, "should_stop": should_stop}
    if config.kind == STAGED:
        sampler = staged_sampler(train, active.seed, **config.options())
        training = active.joint_training(active.training.epochs)
        net = fit_together(sampler, train, val, path.parent, **training, **shown)
        _save(path, train, policy=sampler.state_dict(), reconstructor=net.state_dict())
        return
    learner = _learner(active, name, train)
    fit(learner, val, path.parent, **active.learning.model_dump(), **shown)
    _save(path, train, policy=learner.network.state_dict())
    shutil.rmtree(path.parent / "training")  # its memory is large, and of no more use


def _tune(work: Work, name: str, should_stop: ShouldStop) -> None:
    active, folder, scans, console = work
    path, train = folder.tuned(name), scans["train"]
    if path.exists():
        return
    policy = _chooser(work, name, "train").policy
    net = fit_together(
        PolicySampler(train, policy),
        train,
        scans.get("val"),
        path.parent,
        **active.joint_training(active.finetune.epochs),
        progress=console.is_terminal,
        should_stop=should_stop,
    )
    _save(path, train, reconstructor=net.state_dict())


def _check(active: Active, splits: Splits) -> None:
    """Make everything that learns, before anything is trained: what is impossible says so."""
    net = RECONSTRUCTORS["zero_filled"](splits["train"].n_coils, active.seed)
    scans = processes(splits, **active.scan.model_dump(), reconstructor=net)
    train, is_joint = scans["train"], bool(active.finetune.policies)
    for name, config in active.policies.items():
        if config.kind == STAGED:
            staged_sampler(train, active.seed, **config.options())
            is_joint = True
        elif config.kind in LEARNERS:
            _learner(active, name, train)
        elif config.kind == "order":
            POLICIES["order"](train, train, active.seed, **config.options())
    if active.learning.patience is not None and "val" not in scans:
        raise UserError("learning.patience needs validation data: valid without it is null")
    if is_joint and (active.training.epochs == 0 or active.reconstructor.kind == "zero_filled"):
        raise UserError(
            "staged and fine-tuned policies train the reconstructor: valid with them is "
            "training.epochs of 1 or more, and a reconstructor that learns"
        )


def _learner(active: Active, name: str, process: Process) -> Learner:
    config = active.policies[name]
    learner = LEARNERS[config.kind](process, active.seed, **config.options())
    return learner.to(process.device)


def _scan_of(process: Process) -> dict[str, Any]:
    """What a policy was trained for."""
    return {
        "plane": list(process.data.shape),
        "units": f"{process.units.n} {process.units.kind}",
        "initial": process.n_initial,
        "budget": process.budget,
        "metric": process.metric,
    }


def _save(path: Path, process: Process, **state: Any) -> None:
    with atomic_path(path) as temporary:
        torch.save(state | _scan_of(process), temporary)


def _read(path: Path, process: Process, name: str) -> dict[str, Any]:
    """A checkpoint of this very scan, or ``UserError``."""
    valid = _scan_of(process)
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        scan = {key: state[key] for key in valid}
    except FileNotFoundError as error:
        raise UserError(f"{name} is not trained: kscout acquire train does that") from error
    except Exception as error:  # torch raises whatever its reader meets in a broken file
        raise UserError(
            f"{path} is no checkpoint of a policy: remove it and train again"
        ) from error
    for key, value in valid.items():
        if scan[key] != value:
            raise UserError(f"{path} was trained for {key} {scan[key]}: valid here is {value}")
    return state


def _load(module: torch.nn.Module, state: dict[str, Any], path: Path) -> None:
    try:
        module.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UserError(f"{path} holds another network: remove it and train again") from error


def _with(process: Process, state: dict[str, Any], path: Path) -> Process:
    """The same acquisition through the reconstructor of a checkpoint."""
    net = deepcopy(process.reconstructor)
    _load(net, state["reconstructor"], path)
    return process.through(net)
