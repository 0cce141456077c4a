"""A small U-Net over images, for the networks that reconstruct."""

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

SLOPE = 0.2
"""Of the leaky rectifiers, below zero."""


def _convolution(
    n_in: int, n_out: int, generator: torch.Generator, *, size: int = 3, bias: bool = False
) -> nn.Module:
    layer = skip_init(nn.Conv2d, n_in, n_out, size, padding=size // 2, bias=bias)
    nn.init.kaiming_normal_(layer.weight, SLOPE, nonlinearity="leaky_relu", generator=generator)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


class _Block(nn.Sequential):
    """Twice convolve, normalise, rectify."""

    def __init__(self, n_in: int, n_out: int, generator: torch.Generator) -> None:
        layers: list[nn.Module] = []
        for n in (n_in, n_out):
            # Groups over all channels: a group of its own would have no variance on one pixel.
            layers += [_convolution(n, n_out, generator), nn.GroupNorm(1, n_out)]
            layers += [nn.LeakyReLU(SLOPE, inplace=True)]
        super().__init__(*layers)


class _Up(nn.Module):
    """Double the size to that of the skip connection, whose last row and column may be odd."""

    def __init__(self, n_in: int, n_out: int, generator: torch.Generator) -> None:
        super().__init__()
        self.spread = skip_init(nn.ConvTranspose2d, n_in, n_out, 2, stride=2, bias=False)
        nn.init.normal_(self.spread.weight, std=n_in**-0.5, generator=generator)
        self.block = _Block(2 * n_out, n_out, generator)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        larger = self.spread(x)[..., : skip.shape[-2], : skip.shape[-1]]
        return self.block(torch.cat([larger, skip], 1))


class Unet(nn.Module):
    """U-Net of any image size, a batch of one included (Ronneberger et al. 2015).

    As there, two 3x3 convolutions on each level, halving by pooling, and skip connections; other
    than there, edges are padded, the halves of odd sizes are rounded up and cropped again, and
    group normalisation makes each image independent of its batch. Callers bring images to a
    common scale, and add the output to the input if they want a correction.

    Parameters
    ----------
    n_in, n_out : channels of the images that go in and come out
    generator : of the initial weights
    n_channels : of the first level; each further level has twice as many
    n_levels : how many times the size is halved
    """

    def __init__(
        self, n_in: int, n_out: int, n_channels: int, n_levels: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        widths = [n_channels * 2**level for level in range(n_levels + 1)]
        self.down = nn.ModuleList(
            _Block(a, b, generator) for a, b in zip([n_in, *widths[:-1]], widths, strict=True)
        )
        self.pool = nn.AvgPool2d(2, ceil_mode=True)
        self.up = nn.ModuleList(
            _Up(a, b, generator) for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.last = _convolution(n_channels, n_out, generator, size=1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(batch, n_in, y, x)`` to ``(batch, n_out, y, x)``."""
        x = x.contiguous(memory_format=torch.channels_last)  # a quarter faster on CPUs
        skips = []
        for level, block in enumerate(self.down):
            x = block(self.pool(x) if level else x)
            skips.append(x)
        for block, skip in zip(self.up, skips[-2::-1], strict=True):
            x = block(x, skip)
        result: Tensor = self.last(x)
        return result
