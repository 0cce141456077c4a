"""From a configuration to fitted, tested and written methods."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from kscout.atomic import remove_partials
from kscout.data import KspaceSet, Splits
from kscout.data.slices import held_out
from kscout.errors import Stopped, UserError
from kscout.evaluation import (
    Record,
    evaluate,
    masks_of_slices,
    most_often_acquired,
    positions_in_volumes,
    summarise,
)
from kscout.experiment.config import SEARCHES, Experiment
from kscout.experiment.folder import RunFolder
from kscout.experiment.load import load_data
from kscout.experiment.progress import progress_bar
from kscout.learning.batches import refuse_patience
from kscout.learning.closed_form import fit_closed_form
from kscout.learning.distribute import default_device, started_by_slurm
from kscout.recon import RECONSTRUCTORS, Reconstructor, SpiritNet
from kscout.sampling import Budget, FixedSampler, LearnedSampler, Sampler, build_sampler
from kscout.sampling.learned import tile_budget
from kscout.sampling.pattern import centred_block
from kscout.sampling.tiles import check_tile

N_EXAMPLES = 3


def run_experiment(
    experiment: Experiment,
    folder: Path,
    console: Console,
    *,
    load: Callable[[Experiment, Console], Splits] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> None:
    """Fit and test an experiment's sampler, then every sampler that it is compared with.

    What ``folder`` shows as finished is not done again, and a run that was stopped goes on.

    Parameters
    ----------
    load : in place of :func:`load_data`, for callers that run many experiments on the same data
    should_stop : asked after every epoch

    Raises
    ------
    UserError
        if the experiment is impossible or the folder is another experiment's
    Stopped
        if ``should_stop`` said so
    """
    main = RunFolder(folder)
    jobs = [(main, experiment)]
    jobs += [(main.compared(name), experiment.compared(name)) for name in experiment.compare]
    for run, job in jobs:
        run.refuse_other(job)
    unfinished = [(run, job) for run, job in jobs if run.state != "finished"]
    if not unfinished:
        console.print(f"{folder} is finished: nothing left to do")
        return
    splits = (load or load_data)(experiment, console)
    for _, job in unfinished:  # all are refused before anything is written or done
        try:
            Method.of(job, splits)
        except UserError as error:
            raise UserError(f"{job.name}: {error}") from error
    if _rank(experiment) > 0:  # the first process keeps the folders, tests and writes
        for run, job in unfinished:
            Method.of(job, splits).fit(run, splits, Console(quiet=True), should_stop)
        return
    with main.locked():
        remove_partials(folder)
        for run, job in jobs:
            run.claim(job)
        for i, (run, job) in enumerate(unfinished):
            console.print(f"[bold]{job.name}[/] ({i + 1} of {len(unfinished)})", highlight=False)
            run_one(job, splits, run, console, should_stop)


def _rank(experiment: Experiment) -> int:
    """Of this process, where SLURM has started all those of a training."""
    n_devices, n_nodes = experiment.trainer.n_devices, experiment.trainer.n_nodes
    return int(os.environ["SLURM_PROCID"]) if started_by_slurm(n_devices, n_nodes) else 0


def run_one(
    experiment: Experiment,
    splits: Splits,
    run: RunFolder,
    console: Console,
    should_stop: Callable[[], bool] | None = None,
) -> None:
    """Fit, test and write one method; ``status.json`` says how it ended."""
    run.set_state("running")
    start = time.monotonic()
    try:
        method = Method.of(experiment, splits)
        method.fit(run, splits, console, should_stop)
        seconds = time.monotonic() - start + method.seconds_before
        records = test(method, splits, console)
        _write(run, method, splits, records, seconds)
    except (KeyboardInterrupt, Stopped):
        run.set_state("interrupted")
        raise
    except Exception as error:
        run.set_state("failed", f"{type(error).__name__}: {error}")
        raise
    run.set_state("finished")


@dataclass
class Method:
    """A sampler with a reconstructor, as an experiment describes them.

    Attributes
    ----------
    sampler : ``None`` until a search has found its mask
    mask_history : of a mask that was learned, bool ``(epoch + 1, ky, kx)``
    seconds_before : that earlier, stopped sessions of this run have spent
    epoch_seconds : of each epoch of gradient descent
    """

    experiment: Experiment
    budget: Budget
    sampler: Sampler | None
    reconstructor: Reconstructor
    mask_history: Tensor | None = None
    seconds_before: float = 0.0
    epoch_seconds: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, experiment: Experiment, splits: Splits) -> "Method":
        """The method before any fitting."""
        train = splits["train"]
        sampler, training = experiment.sampler, experiment.training
        budget = Budget.of(train.shape, **experiment.budget.options())
        if budget.n_samples == train.shape[0] * train.shape[1]:
            raise UserError(
                f"a budget of {budget.n_samples} samples acquires the whole plane: nothing is left "
                "to reconstruct"
            )
        config = experiment.reconstructor
        reconstructor = RECONSTRUCTORS[config.kind](
            train.n_coils, experiment.seed, **config.options()
        )
        closed_form = (sampler.kind, training.start, training.finish)
        needs_spirit = "tile_search" in closed_form or "closed_form" in closed_form
        refuse_patience(training.patience, len(splits["val"]), "training")
        if needs_spirit and not isinstance(reconstructor, SpiritNet):
            raise UserError(
                f"reconstructor '{config.kind}' has no closed-form fit: valid with training.start, "
                "training.finish or a tile search is spirit_net"
            )
        _refuse_too_little_acs(config.kind, reconstructor.acs_size, budget)
        made = None
        if sampler.kind == "tile_search":
            check_tile(sampler.tile, train.shape)
            tile_budget(sampler.tile, budget)  # refuses a tile that is left without a point
        if sampler.kind not in SEARCHES:
            made = build_sampler(sampler.kind, budget, experiment.seed, **sampler.options())
        if made is not None and made.adaptive and "closed_form" in closed_form:
            raise UserError(
                f"sampler '{sampler.kind}' has no one mask to fit kernels to: valid with it is "
                "training.start random and training.finish as_trained"
            )
        return cls(experiment, budget, made, reconstructor)

    @property
    def device(self) -> torch.device:
        return torch.device(default_device())

    @property
    def learned(self) -> bool:
        return self.experiment.sampler.kind in SEARCHES or isinstance(self.sampler, LearnedSampler)

    @property
    def epochs(self) -> int:
        """Of gradient descent; those on a fixed mask would be lost when kernels are fitted anew."""
        training, is_learned = self.experiment.training, isinstance(self.sampler, LearnedSampler)
        return 0 if training.finish == "closed_form" and not is_learned else training.epochs

    def mask(self) -> Tensor:
        """The mask to be acquired, bool ``(ky, kx)``."""
        return self.found.mask().cpu()

    @property
    def found(self) -> Sampler:
        """The sampler, after the search if there is one."""
        if self.sampler is None:
            raise RuntimeError("the mask has not been searched for yet")
        return self.sampler

    def fit(
        self,
        run: RunFolder,
        splits: Splits,
        console: Console,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        """Search, then gradient descent, then the closed form, as far as the training asks."""
        training, train = self.experiment.training, splits["train"]
        if self.sampler is None:
            self.search(splits, console)
        assert self.sampler is not None
        self.reconstructor.calibrate(
            train.kspace, train.target, train.coil_scale, self.experiment.seed
        )
        parts = (self.sampler, self.reconstructor)
        if self.epochs and any(True for part in parts for _ in part.parameters()):
            if training.start == "closed_form":
                self._fit_closed_form(splits["train"], console)
            self._descend(run, splits, console, should_stop)
        if training.finish == "closed_form" or (
            training.start == "closed_form" and not self.epochs
        ):
            self._fit_closed_form(splits["train"], console)

    def search(self, splits: Splits, console: Console) -> list[Any]:
        """Rank the masks that the experiment's search goes through, and take the best."""
        config = self.experiment.sampler
        with progress_bar(console, config.kind) as show:
            ranked: list[Any] = SEARCHES[config.kind](
                self.budget,
                self.experiment.seed,
                splits["train"],
                splits["val"],
                self.reconstructor,
                self._closed_form,
                **config.options(),
                advance=show,
            )
        self.sampler = FixedSampler(self.budget, ranked[0].mask(self.budget))
        return ranked

    def _fit_closed_form(self, train: KspaceSet, console: Console) -> None:
        assert isinstance(self.reconstructor, SpiritNet)
        with progress_bar(console, "closed form") as show:
            done, total = count(1), self.reconstructor.n_blocks
            self._closed_form(
                self.reconstructor,
                self.mask(),
                train,
                lambda: show("blocks", next(done), total),
            )

    def _closed_form(
        self,
        net: SpiritNet,
        mask: Tensor,
        train: KspaceSet,
        advance: Callable[[], None] = lambda: None,
    ) -> None:
        options = self.experiment.training.closed_form.options()
        net.to(self.device)
        fit_closed_form(net, mask, train, seed=self.experiment.seed, advance=advance, **options)

    def _descend(
        self,
        run: RunFolder,
        splits: Splits,
        console: Console,
        should_stop: Callable[[], bool] | None,
    ) -> None:
        from kscout.learning.joint import fit_jointly  # takes seconds to import

        assert self.sampler is not None
        training = self.experiment.training
        history = fit_jointly(
            self.sampler,
            self.reconstructor,
            splits["train"],
            splits["val"],
            folder=run.path,
            seed=self.experiment.seed,
            epochs=self.epochs,
            batch_size=training.batch_size,
            learning_rate=training.learning_rate,
            mask_learning_rate=training.mask_learning_rate,
            loss=training.loss,
            patience=training.patience,
            progress=console.is_terminal,
            should_stop=should_stop,
            **self.experiment.trainer.model_dump(),
        )
        self.seconds_before = history.seconds_before
        self.epoch_seconds = [row["seconds"] or 0.0 for row in history.rows]
        if isinstance(self.sampler, LearnedSampler):
            self.mask_history = history.mask_history


def _refuse_too_little_acs(kind: str, size: int, budget: Budget) -> None:
    """Coil maps need a centre that every mask acquires whole."""
    height, width = budget.shape
    centre = centred_block(budget.shape, (min(size, height), min(size, width)))
    if size and (centre & ~budget.acs).any():
        raise UserError(
            f"reconstructor '{kind}' takes coil maps from the {size}x{size} centre of every scan: "
            f"valid with it is budget.acs square with budget.acs_size {size} or more, or its own "
            "acs_size smaller"
        )


def test(method: Method, splits: Splits, console: Console) -> list[Record]:
    """One record for every slice of every test condition, and of validation."""
    records: list[Record] = []
    with progress_bar(console, "test") as show:
        for name, part in held_out(splits).items():
            records += evaluate(
                method.found,
                method.reconstructor,
                part,
                split=name,
                device=method.device,
                progress=partial(show, name),
            )
    return records


def _write(
    run: RunFolder, method: Method, splits: Splits, records: list[Record], seconds: float
) -> None:
    experiment, budget, test_set = method.experiment, method.budget, splits["test"]
    mask = method.mask()
    if method.found.adaptive:
        mask = most_often_acquired(method.found, method.reconstructor, test_set, method.device)
    run.write_array("mask.npy", mask)
    history = method.mask_history
    if history is not None:
        run.write_array("mask_history.npy", history)
    state = {"reconstructor": method.reconstructor.cpu().state_dict()}
    if method.found.adaptive:  # elsewhere the mask says it all
        state["sampler"] = method.found.cpu().state_dict()
    run.write_checkpoint(**state, coil_scale=test_set.coil_scale)
    run.write_table("records.csv", records)
    run.write_arrays("examples.npz", **_examples(method, test_set))
    run.write_json(
        "results.json",
        {
            "name": experiment.name,
            "sampler": experiment.sampler.model_dump(mode="json"),
            "reconstructor": experiment.reconstructor.model_dump(mode="json"),
            "learned": method.learned,
            "adaptive": method.found.adaptive,
            "shape": list(budget.shape),
            "n_samples": int(mask.sum()),
            "n_acs": budget.n_acs,
            "acceleration": mask.numel() / int(mask.sum()),
            "seconds": seconds,
            "n_points_changed": None if history is None else int((mask & ~history[0]).sum()),
            "voxel_size": list(test_set.voxel_size),
            "quarter_turns": test_set.quarter_turns,
            "volumes": "block" if experiment.data.kind == "volume" else "scan",
            "summary": summarise(records),
        },
    )


@torch.no_grad()
def _examples(method: Method, data: KspaceSet) -> dict[str, Tensor]:
    """The middle slice of the first test scans."""
    index = data.middles(N_EXAMPLES)
    part = data.select(index)
    mask = masks_of_slices(method.found.cpu(), part.kspace, method.reconstructor)
    kspace = part.kspace * mask
    return {
        "reference": data.image(part.target),
        "reconstruction": data.image(method.reconstructor(kspace, mask)),
        "zero_filled": data.image(kspace),
        "volume": part.volume,
        "slice": torch.tensor(positions_in_volumes(data.volume.tolist()))[index],
    }
