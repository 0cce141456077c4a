"""The commands ``kscout data ...``."""

from pathlib import Path
from typing import Annotated

import typer

from kscout.cli.common import console, group

app = group("Simulate k-space, and look at files.")


@app.command("simulate")
def simulate(
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


@app.command("show")
def show(
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
