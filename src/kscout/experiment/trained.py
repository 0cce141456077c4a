"""Acquisition policies trained as a configuration says, and found again."""

import hashlib
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
from kscout.atomic import atomic_path, set_aside
from kscout.data import Splits
from kscout.errors import UserError
from kscout.experiment.acquire import processes
from kscout.experiment.active import TUNED, Active, ActiveFolder
from kscout.experiment.fitted import FittedRun
from kscout.experiment.load import load_splits
from kscout.experiment.progress import progress_bar
from kscout.experiment.run import run_experiment
from kscout.learning.batches import refuse_patience
from kscout.learning.distribute import default_device
from kscout.recon import RECONSTRUCTORS, Reconstructor

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
    reconstructor = None if active.run else active.trained_reconstructor(splits)
    _check(active, splits)
    if reconstructor is None:
        scans_of(active, folder, splits)  # of a run that does not fit nothing is written
    with folder.claimed(active):
        if reconstructor is not None:
            load = lambda *_: splits  # noqa: E731 (its arguments are of no use)
            run_experiment(
                reconstructor,
                folder.reconstructor.path,
                console,
                load=load,
                should_stop=should_stop,
            )
        work = Work(active, folder, scans_of(active, folder, splits), console)
        trained = [name for name in active.policies if active.is_trained(name)]
        jobs = [(name, seed, _train) for name in trained for seed in active.seeds_of(name)]
        jobs += [(n, seed, _tune) for n in active.finetune.policies for seed in active.seeds]
        for i, (name, seed, job) in enumerate(jobs):
            said = f"{name if job is _train else name + ', fine-tuning'}, seed {seed}"
            console.print(f"[bold]{said}[/] ({i + 1} of {len(jobs)})", highlight=False)
            job(work, name, seed, should_stop)


def scans_of(active: Active, folder: ActiveFolder, splits: Splits) -> Scans:
    """The acquisition of every split, through the trained reconstructor."""
    run = active.run or folder.reconstructor.path
    return processes(splits, **active.scan.model_dump(), reconstructor=run, device=default_device())


def choosers(work: Work, split: str) -> dict[str, list[Chooser]]:
    """All policies, ready to be judged on a split: of each as many as it has seeds.

    Raises
    ------
    UserError
        if one that learns has not been trained, or for another scan
    """
    found = {}
    for name in work.active.policies:
        found[name] = [_chooser(work, name, seed, split) for seed in work.active.seeds_of(name)]
        if name in work.active.finetune.policies:
            found[name + TUNED] = [_tuned(work, name, seed, split) for seed in work.active.seeds]
    return found


def _tuned(work: Work, name: str, seed: int, split: str) -> Chooser:
    path = work.folder.tuned(name, seed)
    state = _read(path, _made_for(work, name, seed), f"{name}, fine-tuned,")
    policy = _of_seed(work, name, seed, split).policy
    return Chooser(policy, _with(work.scans[split], state, path))


def _of_seed(work: Work, name: str, seed: int, split: str) -> Chooser:
    """The policy of that seed, or the only one."""
    own = seed if seed in work.active.seeds_of(name) else work.active.seed
    return _chooser(work, name, own, split)


def _chooser(work: Work, name: str, seed: int, split: str) -> Chooser:
    active, folder, scans, _ = work
    config, train, judged = active.policies[name], scans["train"], scans[split]
    path, made_for = folder.checkpoint(name, seed), _made_for(work, name, seed)
    if config.kind in LEARNERS:
        learner = _learner(active, name, train, seed)
        _load(learner.network, _read(path, made_for, name)["policy"], path)
        return Chooser(learner.policy, judged)
    if config.kind == STAGED:
        sampler = staged_sampler(train, seed, **config.options())
        state = _read(path, made_for, name)
        _load(sampler, state["policy"], path)
        policy = StagedPolicy(sampler.to(train.device), train.units)
        return Chooser(policy, _with(judged, state, path))
    if config.kind == GREEDY_ORDER:
        return Chooser(OrderPolicy(_read(path, made_for, name)["order"]), judged)
    return Chooser(POLICIES[config.kind](train, judged, seed, **config.options()), judged)


def _train(work: Work, name: str, seed: int, should_stop: ShouldStop) -> None:
    active, folder, scans, console = work
    path, train, val = folder.checkpoint(name, seed), scans["train"], scans.get("val")
    config, made_for = active.policies[name], _made_for(work, name, seed)
    if _is_trained(work, path, name, made_for):
        return
    if config.kind == GREEDY_ORDER:
        with progress_bar(console, name) as show:
            policy = learned_order(train, seed, **config.options(), advance=partial(show, "steps"))
        _save(path, made_for, order=list(policy.order))
        return
    shown: dict[str, Any] = {"progress": console.is_terminal, "should_stop": should_stop}
    if config.kind == STAGED:
        sampler = staged_sampler(train, seed, **config.options())
        training = active.joint_training() | {"seed": seed}
        net = fit_together(sampler, train, val, path.parent, **training, **shown)
        _save(path, made_for, policy=sampler.state_dict(), reconstructor=net.state_dict())
        return
    learner = _learner(active, name, train, seed)
    fit(learner, val, path.parent, **active.learning.model_dump(exclude={"seeds"}), **shown)
    _save(path, made_for, policy=learner.network.state_dict())


def _tune(work: Work, name: str, seed: int, should_stop: ShouldStop) -> None:
    active, folder, scans, console = work
    path, train, made_for = folder.tuned(name, seed), scans["train"], _made_for(work, name, seed)
    if _is_trained(work, path, name, made_for):
        return
    policy = _of_seed(work, name, seed, "train").policy
    net = fit_together(
        PolicySampler(train, policy),
        train,
        scans.get("val"),
        path.parent,
        **active.joint_training(),
        seed=seed,
        progress=console.is_terminal,
        should_stop=should_stop,
    )
    _save(path, made_for, reconstructor=net.state_dict())


def _check(active: Active, splits: Splits) -> None:
    """Make everything that learns, before anything is trained: what is impossible says so."""
    net = _network(active, splits["train"].n_coils)
    scans = processes(splits, **active.scan.model_dump(), reconstructor=net)
    train, is_joint = scans["train"], bool(active.finetune.policies)
    for name, config in active.policies.items():
        if config.kind == STAGED:
            staged_sampler(train, active.seed, **config.options())
            is_joint = True
        elif config.kind in LEARNERS:
            _learner(active, name, train, active.seed)
        elif config.kind == "order":
            POLICIES["order"](train, train, active.seed, **config.options())
    refuse_patience(active.learning.patience, len(splits["val"]), "learning")
    if is_joint and not any(p.requires_grad for p in net.parameters()):
        raise UserError(
            "staged and fine-tuned policies train the reconstructor: valid with them is one that "
            "learns by gradient descent"
        )


def _network(active: Active, n_coils: int) -> Reconstructor:
    """The reconstructor as it was trained, or will be."""
    if active.run is None:
        config: Any = active.reconstructor
        return RECONSTRUCTORS[config.kind](n_coils, active.seed, **config.options())
    fitted = FittedRun.load(active.run)
    of_run = fitted.experiment.data
    if of_run.kind == active.data.kind and of_run != active.data:
        raise UserError(
            f"{active.run} was trained with other {of_run.kind} data, which may hold slices that "
            "are tested here: valid is the same data in both, or another kind of it"
        )
    return fitted.reconstructor


def _learner(active: Active, name: str, process: Process, seed: int) -> Learner:
    config = active.policies[name]
    learner = LEARNERS[config.kind](process, seed, **config.options())
    return learner.to(process.device)


def _fingerprint(module: torch.nn.Module) -> str:
    """Of all its numbers, to the bit."""
    digest = hashlib.sha256()
    for tensor in module.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _made_for(work: Work, name: str, seed: int) -> dict[str, Any]:
    """What a policy was trained as, and for: all that its checkpoint must agree with."""
    active, process = work.active, work.scans["train"]
    return {
        "policy": active.policies[name].model_dump(mode="json"),
        "seed": seed,
        "learning": active.learning.model_dump(mode="json", exclude={"seeds"}),
        "finetuning": active.joint_training(),
        "reconstructor": _fingerprint(process.reconstructor),
        "plane": list(process.data.shape),
        "units": f"{process.units.n} {process.units.kind}",
        "initial": process.n_initial,
        "budget": process.budget,
        "metric": process.metric,
    }


def _save(path: Path, made_for: dict[str, Any], **state: Any) -> None:
    with atomic_path(path) as temporary:
        torch.save(state | {"made_for": made_for}, temporary)
    shutil.rmtree(path.parent / "training", ignore_errors=True)  # large, and of no more use


def _read(path: Path, made_for: dict[str, Any], name: str) -> dict[str, Any]:
    """The checkpoint of this very training, or ``UserError``."""
    if not path.exists():
        raise UserError(f"{name} is not trained: kscout acquire train does that")
    state = _contents(path)
    if state is None:
        raise UserError(f"{path} is no checkpoint of a policy: kscout acquire train makes it anew")
    for key, value in made_for.items():
        if (found := state["made_for"].get(key)) != value:
            raise UserError(
                f"{path} was trained for {key} {found}: valid here is {value}; remove it, and "
                "kscout acquire train makes it anew"
            )
    return state


def _contents(path: Path) -> dict[str, Any] | None:
    """What :func:`_save` wrote; ``None`` if the file cannot be read, or is none of ours."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return state if isinstance(state["made_for"], dict) else None
    except Exception:  # torch raises whatever its reader meets in a broken file
        return None


def _is_trained(work: Work, path: Path, name: str, made_for: dict[str, Any]) -> bool:
    """Whether nothing is left to do; a checkpoint that cannot be read is set aside."""
    if not path.exists():
        return False
    if _contents(path) is None:
        said = f"{path} is damaged: kept as {set_aside(path).name}, and trained again"
        work.console.print(said, style="yellow", soft_wrap=True, highlight=False)
        return False
    _read(path, made_for, name)
    work.console.print("is trained already")
    return True


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
