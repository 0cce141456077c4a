"""Reconstructors: masked k-space in, completed k-space out.

To add one: write it, add a line here. Positional arguments come from the experiment; keyword-only
arguments are what a configuration may set, and their annotations are its validation.
"""

from kscout.recon.base import Reconstructor
from kscout.recon.spirit_net import SpiritNet
from kscout.recon.zero_filled import ZeroFilled

__all__ = ["RECONSTRUCTORS", "Reconstructor", "SpiritNet", "ZeroFilled"]

RECONSTRUCTORS: dict[str, type[Reconstructor]] = {
    "zero_filled": ZeroFilled,
    "spirit_net": SpiritNet,
}
