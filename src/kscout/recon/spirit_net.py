"""A stack of SPIRiT blocks: estimate each point from its neighbours, then put the data back."""

from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from kscout.physics.spirit import Boundary, correlate, kernel_response, odd, transform_shape
from kscout.recon.base import Reconstructor


class SpiritNet(Reconstructor):
    r"""Unrolled SPIRiT with a kernel of its own in every block.

    Block :math:`b` computes :math:`x \leftarrow y + (1 - m)\,(g_b * x)`, starting from the acquired
    data :math:`x = y`: the calibration-consistency step of Lustig & Pauly (2010), followed
    by exact data consistency (their POCS, fig. 3). A point never sees itself: the weight at the
    centre of each coil's own kernel is zero.

    Parameters
    ----------
    n_coils : coils of the data
    seed : of the random initial kernels
    n_blocks : number of blocks
    kernel_size : width of the square kernels, odd
    boundary : what lies outside the sampled plane, ``zero`` or its ``periodic`` continuation
    """

    off_centre: Tensor

    def __init__(
        self,
        n_coils: int,
        seed: int = 0,
        *,
        n_blocks: Annotated[int, Field(ge=1, description="number of SPIRiT blocks")] = 5,
        kernel_size: Annotated[
            int, Field(ge=3, description="width of the kernels, odd"), AfterValidator(odd)
        ] = 7,
        boundary: Boundary = "zero",
    ) -> None:
        super().__init__()
        self.boundary = boundary
        shape = (n_blocks, n_coils, n_coils, kernel_size, kernel_size)
        bound = (2 * n_coils * kernel_size**2) ** -0.5  # keeps the energy of white k-space
        generator = torch.Generator().manual_seed(seed)
        initial = torch.randn(shape, dtype=torch.complex64, generator=generator) * bound
        self.kernels = nn.Parameter(initial)
        off_centre = torch.ones(shape[1:])
        off_centre[:, :, kernel_size // 2, kernel_size // 2].fill_diagonal_(0)
        self.register_buffer("off_centre", off_centre)

    @property
    def n_blocks(self) -> int:
        return self.kernels.shape[0]

    @property
    def kernel_size(self) -> int:
        return self.kernels.shape[-1]

    def kernel(self, block: int) -> Tensor:
        """Kernel of one block, complex ``(coil_out, coil_in, kh, kw)``, its own centre zero."""
        return self.kernels[block] * self.off_centre

    def estimate(self, block: int, x: Tensor, keep: Tensor) -> Tensor:
        """Every point of ``x`` from its neighbours, by one block's kernel, times ``keep``."""
        size = (self.kernel_size, self.kernel_size)
        plane = transform_shape((x.shape[-2], x.shape[-1]), size, self.boundary)
        return correlate(x, kernel_response(self.kernel(block), plane), keep)

    def predict(self, kspace: Tensor, mask: Tensor) -> Tensor:
        # Changes no value, but takes the slope of the mask through the neighbours from the missing
        # points: with it, joint training of the mask does not settle.
        x = kspace = kspace * mask
        for block in range(self.n_blocks - 1):
            x = kspace + self.estimate(block, x, 1 - mask)
        return self.estimate(self.n_blocks - 1, x, torch.ones_like(mask))
