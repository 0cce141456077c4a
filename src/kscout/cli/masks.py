"""The commands ``kscout mask ...``."""

from pathlib import Path
from typing import Annotated

import typer

from kscout.cli.common import Config, Overrides, console, group

app = group("Make, look at and search for masks.")


@app.command("make")
def make(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="a fixed mask, such as caipirinha")],
    out: Annotated[Path, typer.Option(help=".npy, .cfl or .csv file to write")],
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
    whole = mask.all(0)
    if n_lines is not None and not (mask.any(0) == whole).all():
        typer.echo(f"note: {kind} spends the points of {n_lines} lines, and not on whole columns")
    elif kind == "uniform_lines" and not (mask.any(0) == whole).all():
        n_cut = int((mask.any(0) & ~whole).sum())
        typer.echo(f"note: {n_cut} columns are cut to meet the count: --n-lines makes whole ones")
    n = int(mask.sum())
    typer.echo(f"{kind}: {n} of {mask.numel()} points, R = {mask.numel() / n:.3f}: {out}")


@app.command("show")
def show(
    files: Annotated[
        list[Path], typer.Argument(metavar="MASK...", help=".npy or .cfl masks, or runs")
    ],
    out: Annotated[Path, typer.Option(help="picture to write")] = Path("masks.png"),
) -> None:
    """Draw masks side by side, with their counts.

    Example:

        kscout mask show caipirinha.npy runs/demo --out masks.png
    """
    from kscout.report.files import show_masks

    typer.echo(f"picture: {show_masks(files, out)}")


@app.command("convert")
def convert(
    mask: Annotated[Path, typer.Argument(metavar="MASK", help=".npy or .cfl, or a run")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help=".npy, .cfl or .csv file to write")],
) -> None:
    """Write a mask, or that of a run, in a form that scanners and other programs read.

    `.csv` is the order list: a line `ky,kx` for each point, counted from 0, row by row.

    Example:

        kscout mask convert runs/one-scan order.csv
    """
    from kscout.experiment.masks import mask_from, write_mask

    found = mask_from(mask)
    write_mask(found, out)
    typer.echo(f"{int(found.sum())} of {found.numel()} points: {out}")


@app.command("bound")
def bound(
    masks: Annotated[list[Path], typer.Argument(metavar="MASK...", help=".npy, .cfl or runs")],
    config: Annotated[
        Path, typer.Option(help="experiment whose data, budget and ACS the masks are for")
    ],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="change the experiment")
    ] = None,
    n_slices: Annotated[
        int, typer.Option(min=1, help="training slices to take the scan from")
    ] = 16,
    n_steps: Annotated[int, typer.Option(min=1, help="of the relaxed mask")] = 60,
) -> None:
    """Say how many dB a mask leaves to the best mask that its budget could buy.

    The bound is a certificate: for the coils, the noise and a Gaussian prior taken from the
    training slices, no mask of the budget has a lower expected error; if all MASKs are of whole
    columns, no mask of whole columns. See docs/optimal_design.md.

    Examples:

        kscout mask bound caipirinha.npy disc.npy --config configs/noise.yaml

        kscout mask bound runs/brain --config runs/brain/config.yaml --set data.snr_db=20
    """
    from kscout.experiment.masks import certify_masks, print_certificates

    certificates = certify_masks(masks, config, overrides or [], n_slices, n_steps, console())
    print_certificates(certificates, console())


@app.command("search")
def search(
    config: Config,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help=".npy, .cfl or .csv for the best mask")] = None,
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
