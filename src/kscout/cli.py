"""The command line: the only place that parses one.

Everything heavy is imported inside the commands, so that ``kscout --help`` answers at once.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kscout import __version__
from kscout.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

INTERRUPTED = 130
"""Exit code after Ctrl-C."""

app = typer.Typer(
    help="Learn where to sample k-space and how to reconstruct from what was sampled.",
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
mask_app = typer.Typer(
    help="Make, look at and search for masks.", no_args_is_help=True, rich_markup_mode="markdown"
)
data_app = typer.Typer(
    help="Simulate k-space, and look at files.", no_args_is_help=True, rich_markup_mode="markdown"
)
app.add_typer(mask_app, name="mask")
app.add_typer(data_app, name="data")

Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file; see configs/")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY.PATH=VALUE]...", help="changes to the configuration"),
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="folder of a finished run")]


def console() -> "Console":
    from rich.console import Console

    return Console()


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if show:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def train(
    config: Config,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="run folder [runs/NAME of the config]")] = None,
) -> None:
    """Fit a sampler with its reconstructor, and everything it is compared with.

    Ends in a table and RUN/report.html. Stopped at any moment, the same command goes on where it
    was; what is finished is not done again.

    Examples:

        kscout train configs/demo.yaml

        kscout train configs/digits.yaml training.epochs=2 sampler.init=density --out runs/short
    """
    from kscout.experiment import load_experiment, run_experiment

    experiment = load_experiment(config, overrides or ())
    folder = out or Path("runs") / experiment.name.replace(" ", "-")
    run_experiment(experiment, folder, console())
    _show_report([folder], folder / "report.html")


def _show_report(runs: list[Path], out: Path) -> None:
    from kscout.report import load_runs
    from kscout.report.html import write_report
    from kscout.report.table import print_table, write_markdown

    path = write_report(runs, out)
    loaded = load_runs(runs)
    write_markdown(loaded, out.with_suffix(".md"))
    print_table(loaded, console())
    typer.echo(f"report: {path}")


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="run folders")],
    out: Annotated[Path | None, typer.Option(help="HTML file [RUN/report.html]")] = None,
) -> None:
    """Draw finished runs, each with what it was compared with, as one self-contained page.

    The table alone is written beside the page, as Markdown.

    Example:

        kscout report runs/demo runs/digits --out both.html
    """
    _show_report(runs, out or runs[0] / "report.html")


@app.command()
def evaluate(run: Run, overrides: Overrides = None) -> None:
    """Test a finished run again, on its own test data or on changed data.

    Examples:

        kscout evaluate runs/demo

        kscout evaluate runs/demo data.snr_db=20 data.test_coil_turn=15
    """
    from kscout.experiment.apply import evaluate_again
    from kscout.report.table import print_summary

    print_summary(evaluate_again(run, overrides or [], console()), console())


@app.command()
def apply(
    run: Run,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="k-space, .npy or fastMRI HDF5")],
    out: Annotated[
        Path | None, typer.Option(help=".nii, .nii.gz, .h5, .npy or .png [FILE_kscout.nii.gz]")
    ] = None,
) -> None:
    """Reconstruct a file with a finished run.

    Points that were not acquired are zero in the file. A fully sampled file is masked with the
    run's mask first, and the error against it is printed.

    Example:

        kscout apply runs/demo scan.h5 --out scan.nii.gz
    """
    from kscout.data.writers import check_output, write_images
    from kscout.experiment.apply import apply_run
    from kscout.report.files import show_images

    out = out or Path(f"{file.name.removesuffix(file.suffix)}_kscout.nii.gz")
    check_output(out, also=(".png",))
    if out.exists() and out.samefile(file):
        raise UserError(f"{out} is the scan itself: valid is another --out")
    result = apply_run(run, file, console())
    if out.suffix == ".png":
        show_images(result.image(result.kspace), out, file.name, result.geometry)
    else:
        write_images(out, result)
    typer.echo(f"written: {out}")


@mask_app.command("make")
def mask_make(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="a fixed mask, such as caipirinha")],
    out: Annotated[Path, typer.Option(help=".npy file to write")],
    shape: Annotated[str, typer.Option(help="plane, KYxKX")] = "256x256",
    acceleration: Annotated[float | None, typer.Option("--acceleration", "-R")] = None,
    n_samples: Annotated[int | None, typer.Option(help="points, instead of R")] = None,
    n_lines: Annotated[int | None, typer.Option(help="whole columns, instead of R")] = None,
    acs: Annotated[str, typer.Option(help="none, square or lines")] = "none",
    acs_size: Annotated[int, typer.Option(help="points along an axis of the ACS")] = 0,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="of random masks")] = 0,
    options: Annotated[
        list[str] | None, typer.Argument(metavar="[OPTION=VALUE]...", help="options of the mask")
    ] = None,
) -> None:
    """Write a fixed mask of the exact budget.

    Examples:

        kscout mask make caipirinha --shape 121x145 -R 4 --out caipirinha.npy

        kscout mask make poisson_disc -R 8 --acs square --acs-size 24 slope=2 --out disc.npy
    """
    from kscout.experiment.masks import make_mask, write_mask

    budget = {
        "acceleration": acceleration,
        "n_samples": n_samples,
        "n_lines": n_lines,
        "acs": acs,
        "acs_size": acs_size,
    }
    mask = make_mask(kind, shape, budget, seed, options or [])
    write_mask(mask, out)
    n = int(mask.sum())
    typer.echo(f"{kind}: {n} of {mask.numel()} points, R = {mask.numel() / n:.3f}: {out}")


@mask_app.command("show")
def mask_show(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help=".npy masks")],
    out: Annotated[Path, typer.Option(help="picture to write")] = Path("masks.png"),
) -> None:
    """Draw masks side by side, with their counts.

    Example:

        kscout mask show caipirinha.npy disc.npy --out masks.png
    """
    from kscout.report.files import show_masks

    typer.echo(f"picture: {show_masks(files, out)}")


@mask_app.command("search")
def mask_search(
    config: Config,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help=".npy file for the best mask")] = None,
    tile: Annotated[str, typer.Option(help="size, HxW")] = "4x4",
    top: Annotated[int, typer.Option(min=1, help="how many tiles to print")] = 10,
) -> None:
    """Rank every tile on the configuration's data, budget and SPIRiT stack, in closed form.

    Example:

        kscout mask search configs/demo.yaml --out best.npy
    """
    from kscout.experiment.masks import check_mask_path, print_tiles, search_tiles, write_mask

    if out is not None:
        check_mask_path(out)
    ranked, budget = search_tiles(config, overrides or [], tile, console())
    print_tiles(ranked, top, console())
    if out is not None:
        write_mask(ranked[0].mask(budget), out)
        typer.echo(f"written: {out}")


@data_app.command("simulate")
def data_simulate(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="data source, such as brain")],
    out: Annotated[Path, typer.Option(help="folder for the files")],
    options: Annotated[
        list[str] | None, typer.Argument(metavar="[OPTION=VALUE]...", help="of the source")
    ] = None,
) -> None:
    """Write a data source's volumes as fastMRI-style HDF5 and NIfTI.

    Example:

        kscout data simulate brain n_train=2 n_val=0 n_test=1 snr_db=20 --out brains
    """
    from kscout.data import DATA
    from kscout.data.writers import write_splits
    from kscout.experiment.config import parse_options

    chosen = parse_options(DATA, kind, options or [])
    with console().status(f"simulating {kind}"):
        written = write_splits(DATA[kind](**chosen.options()), out)
    typer.echo(f"{len(written)} volumes in {out}")


@data_app.command("show")
def data_show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="k-space .npy or .h5, or .nii")],
    out: Annotated[Path | None, typer.Option(help="picture to write [FILE.png]")] = None,
    index: Annotated[int | None, typer.Option("--slice", help="[the middle one]")] = None,
) -> None:
    """Draw a slice of a file: image, coils, k-space and what was acquired.

    Example:

        kscout data show scan.h5 --slice 10
    """
    from kscout.report.files import show_file

    typer.echo(f"picture: {show_file(file, out or Path(file.name + '.png'), index)}")


def main() -> None:
    """Run the command line; bad input ends in one line and exit code 2."""
    try:
        app()
    except UserError as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        sys.exit(2)
    except SystemExit as ended:
        if ended.code == INTERRUPTED:  # typer ends so on Ctrl-C, without a word
            resumes = ": kscout train goes on from here when called again"
            typer.echo("interrupted" + resumes * (sys.argv[1:2] == ["train"]), err=True)
        raise
