"""The command that reconstructs a file: ``kscout recon``."""

from pathlib import Path
from typing import Annotated

import typer

from kscout.cli.common import clean_up_when_ended, console


def recon(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="k-space: .mrd, .h5, .cfl, .npy; or .nii")
    ],
    options: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[OPTION=VALUE]...", help="of the method, or of the format, as in data info"
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            metavar="METHOD|RUN",
            help="spirit, spirit-pocs, l1-spirit, tv-spirit, sense, l1-sense, grappa; or a run's "
            "folder",
        ),
    ] = "spirit",
    out: Annotated[
        Path | None,
        typer.Option(help=".nii, .nii.gz, .h5, .npy, .cfl or .png [FILE_kscout.nii.gz]"),
    ] = None,
    acs: Annotated[str, typer.Option(help="auto, or KYxKX of the centre to calibrate on")] = "auto",
    mask: Annotated[
        Path | None, typer.Option(help="of the points used: .npy, .cfl or a run")
    ] = None,
    coils: Annotated[int | None, typer.Option(min=1, help="compress the coils to so many")] = None,
    prewhiten: Annotated[
        bool, typer.Option(help="make noise white, where the file has a noise scan")
    ] = True,
    trajectory: Annotated[
        Path | None, typer.Option(help=".npy or .cfl: FILE holds samples off the grid, there")
    ] = None,
    matrix: Annotated[
        str, typer.Option(help="of the grid for a trajectory: auto, or KYxKX")
    ] = "auto",
) -> None:
    """Reconstruct a file, slice by slice.

    Points that were not acquired are zero in the file. With a fully sampled file and a mask,
    --mask or a run's own, the others are left out, and the error against the file is printed.
    Images are root sums of squares over coils; .h5 holds completed k-space too. A .png shows up to
    twelve slices, and only these are reconstructed.

    Options: of all SPIRiTs `kernel_size`, `regularisation`, `n_iterations`; of spirit `damping`,
    `data_weight`; of l1-spirit, tv-spirit and l1-sense `sparsity`; of sense and l1-sense `n_maps`,
    `crop`, `n_iterations`; of sense `damping`; of grappa `kernel_size`, `regularisation`; off the
    grid those of spirit, and `acs_size`.

    Examples:

        kscout recon scan.mrd --out image.nii.gz

        kscout recon scan.h5 sparsity=0.002 --method l1-spirit --coils 6 --out image.nii.gz

        kscout recon full.h5 --mask caipirinha.npy --method sense --out image.png

        kscout recon next.h5 --mask runs/one-scan --out next.nii.gz

        kscout recon scan.h5 --method runs/demo --out scan.nii.gz

        kscout recon spokes.cfl --trajectory spokes_traj.cfl --matrix 128x128
    """
    from kscout.data.formats import SUFFIXES
    from kscout.data.writers import check_output, refuse_input
    from kscout.experiment.inspect import write_with_progress
    from kscout.experiment.recon import Request, open_reconstruction
    from kscout.report.files import show_scan

    stem = next((file.name.removesuffix(s) for s in SUFFIXES if file.name.endswith(s)), file.name)
    out = out or Path(f"{stem}_kscout.nii.gz")
    check_output(out, also=(".png",))
    refuse_input(out, [file, mask, trajectory])
    clean_up_when_ended()
    request = Request(method, options or (), acs, mask, coils, prewhiten, trajectory, matrix)
    with open_reconstruction(file, request, console()) as scan:
        if out.suffix == ".png":
            show_scan(scan, out, f", {Path(method).name}")
        else:
            write_with_progress("reconstruct", out, scan, console(), images=True)
        for remark in scan.remarks():
            typer.echo(remark)
    typer.echo(f"written: {out}")
