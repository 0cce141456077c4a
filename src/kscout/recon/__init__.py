"""Reconstructors: masked k-space in, completed k-space out.

To add one: write it, add a line here. Positional arguments come from the experiment; keyword-only
arguments are what a configuration may set, and their annotations are its validation.
"""

from kscout.recon.base import Reconstructor
from kscout.recon.cg_spirit import CgSpirit
from kscout.recon.coil_unet import CoilUnet
from kscout.recon.gaussian_sense import GaussianSense
from kscout.recon.spirit_net import SpiritNet
from kscout.recon.varnet import VarNet
from kscout.recon.zero_filled import ZeroFilled

__all__ = [
    "RECONSTRUCTORS",
    "CgSpirit",
    "CoilUnet",
    "GaussianSense",
    "Reconstructor",
    "SpiritNet",
    "VarNet",
    "ZeroFilled",
]

RECONSTRUCTORS: dict[str, type[Reconstructor]] = {
    "zero_filled": ZeroFilled,
    "spirit_net": SpiritNet,
    "cg_spirit": CgSpirit,
    "coil_unet": CoilUnet,
    "gaussian_sense": GaussianSense,
    "varnet": VarNet,
}
