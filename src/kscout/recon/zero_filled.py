"""No reconstruction: what was not acquired stays zero."""

import torch
from torch import Tensor

from kscout.recon.base import Reconstructor


class ZeroFilled(Reconstructor):
    """The acquired k-space itself. Every other reconstructor is judged against this one."""

    def __init__(self, n_coils: int, seed: int = 0) -> None:
        super().__init__()

    def predict(self, kspace: Tensor, mask: Tensor) -> Tensor:
        return torch.zeros_like(kspace)
