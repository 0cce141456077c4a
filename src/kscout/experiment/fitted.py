"""A finished run as it goes to other data; and its test again."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from torch import Tensor

from kscout.data import KspaceSet
from kscout.data.slices import held_out
from kscout.errors import UserError
from kscout.evaluation import evaluate, summarise
from kscout.experiment.config import Experiment, check, set_paths
from kscout.experiment.folder import RunFolder
from kscout.experiment.load import load_data
from kscout.experiment.progress import progress_bar
from kscout.recon import RECONSTRUCTORS, Reconstructor
from kscout.sampling import Budget, FixedSampler, Sampler, build_sampler


@dataclass(frozen=True)
class FittedRun:
    """What a finished run takes to new data.

    Attributes
    ----------
    mask : bool ``(ky, kx)``; of an adaptive sampler, the points that it acquired most often
    sampler : gives every slice its mask: that mask, unless the sampler is adaptive
    coil_scale : float ``(coil,)``, the scale of the coils that the reconstructor was fitted on
    """

    experiment: Experiment
    mask: Tensor
    sampler: Sampler
    reconstructor: Reconstructor
    coil_scale: Tensor

    @classmethod
    def load(cls, folder: Path) -> "FittedRun":
        """Read a run folder; ``UserError`` if it is none, is unfinished or is broken."""
        inner = folder / "reconstructor"
        if (inner / "config.yaml").exists():
            raise UserError(f"{folder} holds acquisition policies: valid is its run, {inner}")
        run = RunFolder(folder)
        experiment = run.experiment()
        if run.state != "finished":
            raise UserError(f"{folder} is not finished ({run.state}): run `kscout train` again")
        checkpoint, mask = run.checkpoint(), run.mask()
        scale: Tensor = checkpoint["coil_scale"]
        config = experiment.reconstructor
        reconstructor = RECONSTRUCTORS[config.kind](len(scale), experiment.seed, **config.options())
        shape = (mask.shape[0], mask.shape[1])
        sampler: Sampler = FixedSampler(Budget.of(shape, n_samples=int(mask.sum())), mask)
        try:
            reconstructor.load_state_dict(checkpoint["reconstructor"])
            if "sampler" in checkpoint:
                kind, options = experiment.sampler.kind, experiment.sampler.options()
                budget = Budget.of(shape, **experiment.budget.options())
                sampler = build_sampler(kind, budget, experiment.seed, **options)
                sampler.load_state_dict(checkpoint["sampler"])
        except (RuntimeError, TypeError, AttributeError) as error:
            raise UserError(
                f"{folder / 'checkpoint.ckpt'} does not fit the run's {config.kind}: "
                "config.yaml or the checkpoint was changed"
            ) from error
        return cls(experiment, mask, sampler.eval(), reconstructor.eval(), scale)


def evaluate_again(
    folder: Path, overrides: Sequence[str], console: Console
) -> dict[str, dict[str, object]]:
    """Test a finished run on its data, changed by ``data.*`` overrides: summary per condition."""
    run = FittedRun.load(folder)
    experiment = run.experiment
    if overrides:
        tree = experiment.model_dump(mode="json", exclude_unset=True)
        for override in overrides:
            if not override.startswith("data."):
                raise UserError(f"'{override}': only data.* can be changed of a finished run")
        set_paths(tree, overrides)
        experiment = check(Experiment, tree, str(folder / "config.yaml"))
    splits = load_data(experiment, console)
    records = []
    with progress_bar(console, "test") as show:
        for name, part in held_out(splits).items():
            scaled = rescaled(part, run, folder)
            records += evaluate(
                run.sampler, run.reconstructor, scaled, split=name, progress=partial(show, name)
            )
    return summarise(records)


def rescaled(data: KspaceSet, run: FittedRun, folder: Path) -> KspaceSet:
    """Slices with the coils on the scale that a run was fitted on.

    Raises
    ------
    UserError
        naming the run's folder, if it was fitted to another number of coils
    """
    if data.n_coils != len(run.coil_scale):
        raise UserError(
            f"the data has {data.n_coils} coils: {folder} was fitted to {len(run.coil_scale)}"
        )
    return data.with_coil_scale(run.coil_scale)
