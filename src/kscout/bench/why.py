"""Why a mask is good: what physics says of it in the coils of the test data."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kscout.atomic import atomic_path
from kscout.data import KspaceSet
from kscout.metrics import foreground
from kscout.physics.coils import low_resolution
from kscout.physics.gfactor import gfactor, maps_from_images
from kscout.physics.psf import point_spread, radial_density, sidelobe_ratio
from kscout.report import Array, Run
from kscout.report.why import MaskFacts

CENTRE = 24
"""Points along an axis of k-space that the coil maps come from."""


def explain(
    runs: Sequence[Run], test: KspaceSet, kept: Path, advance: Callable[[str, int, int], None]
) -> list[MaskFacts]:
    """Point spread, density and g-factor of every run's mask.

    Parameters
    ----------
    test : the middle slice of its first scan gives the coils
    kept : folder for maps of g, which take long
    """
    maps = coil_maps(test) if test.n_coils > 1 else None
    facts = []
    for i, run in enumerate(runs):
        mask = torch.from_numpy(run.mask())
        radius, density = radial_density(mask)
        facts.append(
            MaskFacts(
                name=run.label,
                mask=run.mask(),
                psf=point_spread(mask).numpy(),
                density=(radius.numpy(), density.numpy()),
                sidelobe=sidelobe_ratio(mask),
                gfactor=None if maps is None else _gfactor(maps, mask, kept),
            )
        )
        advance("masks", i + 1, len(runs))
    return facts


def _gfactor(maps: Tensor, mask: Tensor, kept: Path) -> Array:
    digest = hashlib.sha256(maps.numpy().tobytes() + mask.numpy().tobytes()).hexdigest()[:16]
    path = kept / f"{digest}.npy"
    with suppress(OSError, ValueError, EOFError):  # none yet, or a damaged one
        found: Array = np.load(path, allow_pickle=False)
        if found.shape == tuple(mask.shape):
            return found
    values = gfactor(maps, mask, seed=0).numpy()
    with atomic_path(path) as temporary:
        np.save(temporary, values, allow_pickle=False)
    return values


def coil_maps(test: KspaceSet) -> Tensor:
    """Sensitivities in the middle slice of the first scan: complex ``(coil, y, x)``, 0 in air."""
    places = torch.nonzero(test.volume == test.volume[0]).flatten()
    part = test.select(places[len(places) // 2 :][:1])
    kspace = part.target / part.coil_scale[:, None, None]
    images = low_resolution(kspace, CENTRE)[0]
    image = part.image(part.target)
    is_object = foreground(image, image.amax((-2, -1)))[0]
    return maps_from_images(images, is_object)
