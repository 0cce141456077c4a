"""One fully sampled scan, whose slices are split: to design a mask for the subjects to come."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from kscout.data.files import Options, Scale, held_out_counts, read_fully_sampled, read_geometry
from kscout.data.formats import open_scan
from kscout.data.slices import KspaceSet, Splits, check_splits
from kscout.errors import UserError

ONE_SUBJECT = (
    "all slices are of one scan, in blocks: what is told of the test is of this subject, and not "
    "of the next"
)


def volume(
    *,
    path: Annotated[Path, Field(description="of the scan, in any format")],
    n_blocks: Annotated[
        int, Field(ge=3, description="of neighbouring slices, which stay together")
    ] = 10,
    val_fraction: Annotated[float, Field(ge=0, lt=1, description="of the blocks")] = 0.1,
    test_fraction: Annotated[float, Field(gt=0, lt=1, description="of the blocks")] = 0.2,
    split_seed: Annotated[int, Field(ge=0, description="of the draw of blocks")] = 0,
    scale: Scale = "max",
    reading: Options = None,
) -> Splits:
    """Slices of one scan, blocks of neighbours drawn at random for training, validation and test.

    A block counts as a volume, so that neighbours, which are alike, count as one where intervals
    are drawn. The middle of a head and its ends are in all splits, by chance.

    Raises
    ------
    UserError
        if the file cannot be used (see :func:`kscout.data.files.read_fully_sampled`), or has too
        few slices
    """
    kspace = read_fully_sampled(path, reading)
    n_val, n_test = held_out_counts(path, n_blocks, "blocks", val_fraction, test_fraction)
    if len(kspace) < n_blocks:
        raise UserError(
            f"{path}: {len(kspace)} slices cannot be {n_blocks} blocks: valid is n_blocks of 3 to "
            "the number of slices"
        )
    if scale == "max":
        kspace /= kspace.abs().max()
    block = torch.arange(len(kspace)) * n_blocks // len(kspace)
    order = torch.randperm(n_blocks, generator=torch.Generator().manual_seed(split_seed))
    geometry = read_geometry(path, reading)._asdict()

    def part(blocks: Tensor) -> KspaceSet:
        chosen = torch.nonzero(torch.isin(block, blocks)).flatten()
        slices = kspace[chosen]
        return KspaceSet(slices, slices, block[chosen], torch.ones(kspace.shape[1]), **geometry)

    test, val, train = order.split([n_test, n_val, n_blocks - n_test - n_val])
    return check_splits({"train": part(train), "val": part(val), "test": part(test)})


def volume_notes(*, path: Path, reading: Mapping[str, Any] | None = None, **_: object) -> list[str]:
    """What is to be known of a ``volume`` source, called with its options."""
    with open_scan(path, reading) as scan:
        return [*(f"{path.name}: {note}" for note in scan.notes), ONE_SUBJECT]
