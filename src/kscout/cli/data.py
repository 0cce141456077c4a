"""The commands ``kscout data ...``."""

from pathlib import Path
from typing import Annotated

import typer

from kscout.cli.common import clean_up_when_ended, console, group

app = group("Simulate k-space, look at files, and convert them.")

File = Annotated[
    Path, typer.Argument(metavar="FILE", help="k-space: .mrd, .h5, .cfl, .npy; or .nii magnitudes")
]
Reading = Annotated[
    list[str] | None,
    typer.Argument(metavar="[OPTION=VALUE]...", help="of the format, such as repetition=2"),
]


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
    file: File,
    reading: Reading = None,
    out: Annotated[Path | None, typer.Option(help="picture to write [FILE.png]")] = None,
    index: Annotated[int | None, typer.Option("--slice", help="[the middle one]")] = None,
) -> None:
    """Draw a slice of a file: image, coils, k-space and what was acquired.

    Example:

        kscout data show scan.h5 --slice 10
    """
    from kscout.data.arrays import existing_file
    from kscout.experiment.inspect import parse_reading
    from kscout.report.files import show_file

    existing_file(file)
    out = out or Path(f"{file.name}.png")
    typer.echo(f"picture: {show_file(file, out, index, parse_reading(reading or []))}")


@app.command("info")
def info(file: File, reading: Reading = None) -> None:
    """Say what a file holds: sizes, sampling pattern, R, ACS, noise, and what to beware of.

    Options of ISMRMRD: encoding, contrast, repetition, set and phase, by number, and
    allow_missing=true, which reads what seems to lack lines. Of NIfTI, whose magnitudes are put
    into simulated coils: n_coils, phase, snr_db, phase_seed and noise_seed.

    Examples:

        kscout data info scan.mrd

        kscout data info scan.mrd repetition=2
    """
    from kscout.experiment.inspect import parse_reading, print_info

    print_info(file, parse_reading(reading or []), console())


@app.command("convert")
def convert(
    file: File,
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help=".h5, .cfl, .npy; .nii, .nii.gz, .png of images")
    ],
    reading: Reading = None,
) -> None:
    """Write a file in another format, slice by slice: k-space, or its zero-filled images.

    OUT says the format. `.nii`, `.nii.gz` and `.png` are magnitude images, root sum of squares over
    coils; all others are k-space. FILE takes the same options as `kscout data info`.

    Examples:

        kscout data convert scan.mrd scan.h5

        kscout data convert scan.mrd second.cfl repetition=1
    """
    from kscout.data.formats import open_scan
    from kscout.data.writers import check_output, refuse_input
    from kscout.experiment.inspect import parse_reading, write_with_progress
    from kscout.report.files import show_scan

    check_output(out, also=(".png",))
    refuse_input(out, [file])
    clean_up_when_ended()
    with open_scan(file, parse_reading(reading or [])) as scan:
        if out.suffix == ".png":
            show_scan(scan, out)
        else:
            write_with_progress("convert", out, scan, console())
        for note in scan.notes:
            typer.echo(f"note: {note}")
        if out.suffix in (".npy", ".cfl"):
            typer.echo(f"note: {out.suffix} keeps k-space alone: no voxel, place, noise or notes")
    typer.echo(f"written: {out}")
