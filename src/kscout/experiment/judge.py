"""Trained policies judged on held-out slices, with everything that a report needs."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from kscout.acquisition.judged import judged, records
from kscout.acquisition.process import Process
from kscout.acquisition.registry import STAGED
from kscout.acquisition.rollout import Rollout, roll_out
from kscout.data.slices import held_out
from kscout.experiment.active import CONFIG, TUNED, Active, ActiveFolder
from kscout.experiment.folder import RunFolder
from kscout.experiment.load import load_splits
from kscout.experiment.progress import progress_bar
from kscout.experiment.trained import Chooser, Work, choosers, scans_of

N_EXAMPLES = 3
"""Slices that are shown step by step."""


def judge_policies(folder: Path, console: Console) -> dict[str, Any]:
    """Acquire every slice of every test condition by every policy; write and return the results.

    ``records.csv`` has one row for every slice and step, ``results.json`` what they say together,
    ``examples.npz`` some slices step by step, and how often each unit came at which step.

    Raises
    ------
    UserError
        if the folder holds no policies, or some are not trained
    """
    home = ActiveFolder(folder)
    active, files = home.active(), RunFolder(folder)
    splits = load_splits(active.data, console)
    scans = scans_of(active, home, splits)
    rows, found, kinds, examples = [], {}, dict[str, str](), dict[str, Tensor]()
    tuned = [name + TUNED for name in _orders(active) if name in active.finetune.policies]
    orders = [_orders(active), tuned]
    for split in (name for name in held_out(splits) if name != "val"):
        policies = choosers(Work(active, home, scans, console), split)
        rollouts: dict[str, list[Rollout]] = {}
        for name, of_seeds in policies.items():
            with progress_bar(console, name) as show:
                rollouts[name] = [
                    roll_out(process, policy, advance=partial(show, f"{split}, seed {i}"))
                    for i, (policy, process) in enumerate(of_seeds, active.seed)
                ]
            rows += records(name, split, rollouts[name], scans[split], active.seed)
        found[split] = judged(
            rollouts,
            scans[split],
            orders,
            _references(active),
            partial(_has_own, active),
            trained_once=_trained_once(active),
        )
        kinds = {name: active.role(name) for name in rollouts}
        examples = examples or _examples(policies, rollouts, scans[split])
    document = {
        "name": active.name,
        "seeds": active.seeds,
        "facts": _facts(active),
        "units": active.scan.units,
        "kinds": kinds,
        "quarter_turns": splits["test"].quarter_turns,
        "voxel_size": list(splits["test"].voxel_size),
        "results": found,
    }
    files.write_table("records.csv", rows)
    files.write_arrays("examples.npz", **examples)
    files.write_json("results.json", document)
    return document


def _facts(active: Active) -> dict[str, str]:
    """What was judged, in words."""
    data, scan = active.data.options(), active.scan.model_dump(exclude_none=True)
    if scan["units"] != "tile":
        del scan["tile"]
    config: Any = active.reconstructor
    net = active.run or f"{config.kind}, {active.training.epochs} epochs"
    said = {
        "command": f"kscout acquire eval FOLDER, after kscout acquire train with its {CONFIG}",
        "data": f"{active.data.kind} {_listed(data)}",
        "scan": _listed(scan),
        "reconstructor": f"{net}; the same for all but staged and fine-tuned policies",
        "policies that learn": _listed(active.learning.model_dump(exclude_none=True)),
    }
    if active.finetune.policies or any(c.kind == STAGED for c in active.policies.values()):
        said["staged and fine-tuned"] = f"{active.finetune.epochs} epochs with a copy of it"
    return said


def _listed(options: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in options.items() if value is not None)


def _has_own(active: Active, name: str) -> bool:
    """Whether the reconstructor was trained with the policy's masks."""
    return name not in active.policies or active.policies[name].kind == STAGED


def _trained_once(active: Active) -> set[str]:
    """Policies of which nothing is known beyond one training."""
    if active.learning.seeds > 1:
        return set()
    learned = {name for name in active.policies if active.learns(name)}
    return learned | {name + TUNED for name in active.finetune.policies}


def _orders(active: Active) -> list[str]:
    """Policies that give every slice the same order."""
    return [name for name in active.policies if active.role(name) == "order"]


def _references(active: Active) -> list[str]:
    """What all are compared with besides the best order: low to high, and chance."""
    low_to_high = [
        name
        for name, config in active.policies.items()
        if config.kind == "order" and config.units is None and config.direction == "low_to_high"
    ]
    drawn = [name for name, config in active.policies.items() if config.kind == "random"]
    return low_to_high[:1] + drawn[:1]


@torch.no_grad()
def _examples(
    policies: dict[str, list[Chooser]], rollouts: dict[str, list[Rollout]], scan: Process
) -> dict[str, Tensor]:
    index = scan.data.middles(N_EXAMPLES)
    reference = scan.data.image(scan.data.target[index])
    kept = {"reference": reference}
    peak = reference.amax((-2, -1))[:, None, None, None]  # for half precision
    for number, (name, ((_, process), *_)) in enumerate(policies.items()):
        state = process.start(index)
        images, masks, scores = [state.image], [process.units.mask(state.acquired)], [state.score]
        for action in rollouts[name][0].actions[index].T:
            state, _ = process.step(state, action)
            images.append(state.image)
            masks.append(process.units.mask(state.acquired))
            scores.append(state.score)
        kept[f"images_{number}"] = (torch.stack(images, 1).to(peak) / peak).half()
        kept[f"masks_{number}"] = torch.stack(masks, 1)[:, :, 0].bool()
        kept[f"scores_{number}"] = torch.stack(scores, 1)
        kept[f"chosen_{number}"] = _chosen(rollouts[name], process.units.n)
    return kept


def _chosen(rollouts: list[Rollout], n_units: int) -> Tensor:
    """Fraction of slices that acquire each unit at each step: float ``(step, unit)``."""
    actions = torch.cat([rollout.actions for rollout in rollouts])
    return torch.nn.functional.one_hot(actions, n_units).float().mean(0)
