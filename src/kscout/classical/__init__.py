"""Reconstructions that a scan calibrates itself, from its fully sampled centre.

All are called alike: ``method(kspace, mask, acs, **options)`` of complex
``(slice, coil, ky, kx)``, {0, 1} ``(ky, kx)`` and the size of the fully sampled centre, and give
completed k-space, without a gradient. To add one: write it, add a line here. Keyword-only arguments
are what a command may set, and their annotations are its validation.
"""

from collections.abc import Callable

from torch import Tensor

from kscout.classical.grappa import grappa
from kscout.classical.l1_spirit import l1_spirit
from kscout.classical.non_cartesian import spirit_non_cartesian
from kscout.classical.sense import l1_sense, sense
from kscout.classical.spirit import spirit, spirit_pocs
from kscout.classical.tv_spirit import tv_spirit

__all__ = [
    "METHODS",
    "grappa",
    "l1_sense",
    "l1_spirit",
    "sense",
    "spirit",
    "spirit_non_cartesian",
    "spirit_pocs",
    "tv_spirit",
]

METHODS: dict[str, Callable[..., Tensor]] = {
    "spirit": spirit,
    "spirit_pocs": spirit_pocs,
    "l1_spirit": l1_spirit,
    "tv_spirit": tv_spirit,
    "sense": sense,
    "l1_sense": l1_sense,
    "grappa": grappa,
}
