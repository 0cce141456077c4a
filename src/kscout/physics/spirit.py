r"""The SPIRiT kernel: every k-space point as a linear combination of its neighbours in all coils.

Lustig & Pauly, Magn Reson Med 64:457 (2010): :math:`\hat x_i = \sum_j g_{ij} * x_j`, with the
weight of the point itself zero. Here, for output coil :math:`o` at position :math:`p`,

.. math:: \hat x_o(p) = \sum_{i, d} g_{o i d}\; x_i(p + d)

over input coils :math:`i` and offsets :math:`d` in the kernel's window. In the image domain this is
a coil-by-coil matrix product per pixel, which is how it is computed.
"""

import math
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from kscout.physics.fourier import fast_length, plane_fft, plane_ifft

Boundary = Literal["zero", "periodic"]


def odd(size: int) -> int:
    """The size of a kernel with a centre; ``ValueError`` for any other."""
    if size % 2 == 0:
        raise ValueError(f"an odd number is needed, such as {size - 1} or {size + 1}")
    return size


def transform_shape(
    shape: tuple[int, int], kernel_size: tuple[int, int], boundary: Boundary
) -> tuple[int, int]:
    """Plane on which the product is taken.

    A wrapped-around neighbour must fall on padding, so half a kernel of zeros is enough for the
    zero boundary; the rest makes the length fast. The periodic boundary is the plane itself.
    """
    if boundary == "periodic":
        return shape
    return (
        fast_length(shape[0] + kernel_size[0] // 2),
        fast_length(shape[1] + kernel_size[1] // 2),
    )


def kernel_response(kernel: Tensor, plane: tuple[int, int]) -> Tensor:
    r"""The kernel as one matrix per pixel.

    Small Fourier matrices instead of an FFT of the padded kernel: a few weights become a plane.

    Parameters
    ----------
    kernel : complex ``(coil_out, coil_in, kh, kw)``, odd kh and kw
    plane : ``(ny, nx)``

    Returns
    -------
    complex ``(ny, nx, coil_in, coil_out)``
    """
    n_out, n_in, *size = kernel.shape
    waves = [_waves(n, k, kernel) for n, k in zip(plane, size, strict=True)]
    rows = torch.einsum("yk,kr->yr", waves[0], kernel.permute(2, 3, 1, 0).reshape(size[0], -1))
    rows = rows.reshape(plane[0], size[1], n_in * n_out)
    return torch.matmul(waves[1], rows).reshape(*plane, n_in, n_out)


def _waves(n: int, size: int, like: Tensor) -> Tensor:
    offsets = torch.arange(size, device=like.device, dtype=torch.float64) - size // 2
    frequencies = torch.arange(n, device=like.device, dtype=torch.float64)
    phase = 2 * math.pi / n * torch.outer(frequencies, offsets)
    return torch.polar(torch.ones_like(phase), phase).to(like.dtype)


class _Correlation(torch.autograd.Function):
    """:func:`correlate` with its gradient written out.

    Autograd would hand the batched matrix product lazily conjugated operands, which it copies one
    matrix at a time; transposed ones it takes as they are. The gradient has the forward's shape:
    pad, transform, multiply by the adjoint matrices, transform back, crop.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, response: Tensor, keep: Tensor) -> Tensor:
        pixels = _to_pixels(plane_fft(x, response.shape[:2]))
        estimate = _from_pixels(torch.bmm(pixels, response.flatten(0, 1)), response, x.shape)
        ctx.save_for_backward(pixels, response, keep, estimate if keep.requires_grad else None)
        return estimate * keep

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        pixels, response, keep, estimate = ctx.saved_tensors
        needs_x, needs_response, needs_keep = ctx.needs_input_grad
        grad_x = grad_response = grad_keep = None
        if needs_keep:
            grad_keep = (gradient * estimate.conj()).real.sum_to_size(keep.shape)
        if needs_x or needs_response:
            # A^H g = conj(A^T conj(g)), so one conjugate, taken in place, serves both products.
            g = _to_pixels(plane_fft(gradient * keep, response.shape[:2])).conj_physical_()
        if needs_response:
            product = torch.bmm(pixels.mT, g).conj_physical_()
            grad_response = product.div_(g.shape[0]).view(response.shape)
        if needs_x:
            product = torch.bmm(g, response.flatten(0, 1).mT).conj_physical_()
            grad_x = _from_pixels(product, response, gradient.shape)
        return grad_x, grad_response, grad_keep


def _to_pixels(spectrum: Tensor) -> Tensor:
    """``(batch, coil, ny, nx)`` to one matrix per pixel, ``(pixel, batch, coil)``."""
    return spectrum.flatten(2).permute(2, 0, 1).contiguous()


def _from_pixels(pixels: Tensor, response: Tensor, shape: torch.Size) -> Tensor:
    """``(pixel, batch, coil)`` back to k-space, cropped to the last two of ``shape``."""
    spectrum = pixels.permute(1, 2, 0).contiguous().unflatten(2, response.shape[:2])
    return plane_ifft(spectrum)[..., : shape[-2], : shape[-1]]


def correlate(x: Tensor, response: Tensor, keep: Tensor) -> Tensor:
    """Estimate every point from its neighbours, times ``keep`` (1 where the estimate counts).

    Parameters
    ----------
    x : complex ``(batch, coil_in, ky, kx)``
    response : complex ``(ny, nx, coil_in, coil_out)`` from :func:`kernel_response`; its plane, from
        :func:`transform_shape`, decides the boundary
    keep : real ``(ky, kx)`` or ``(batch, 1, ky, kx)``

    Returns
    -------
    complex ``(batch, coil_out, ky, kx)``
    """
    if x.shape[0] == 0:  # some FFT libraries refuse an empty transform
        return x.new_zeros((0, response.shape[3], *x.shape[2:]))
    result: Tensor = _Correlation.apply(x, response, keep)  # type: ignore[no-untyped-call]
    return result


class SpiritOperator:
    r"""What a kernel says of k-space and what k-space is: :math:`(G - I)\,x`.

    Lustig & Pauly (2010), calibration consistency: consistent k-space makes it zero.

    Parameters
    ----------
    kernel : complex ``(coil, coil, kh, kw)``
    shape : ``(ky, kx)`` of the plane
    boundary : what lies outside of it
    """

    def __init__(
        self, kernel: Tensor, shape: tuple[int, int], boundary: Boundary = "periodic"
    ) -> None:
        n_coils, _, *size = kernel.shape
        self.is_periodic = boundary == "periodic"
        plane = transform_shape(shape, (size[0], size[1]), boundary)
        response = kernel_response(kernel, plane)
        self.response = response - torch.eye(n_coils, dtype=kernel.dtype, device=kernel.device)
        self.everywhere = kernel.real.new_ones(1, 1)

    @cached_property
    def adjoint_response(self) -> Tensor:
        return self.response.mH.resolve_conj()

    @cached_property
    def normal_response(self) -> Tensor:
        return self.response @ self.response.mH

    def forward(self, x: Tensor) -> Tensor:
        """:math:`(G - I)\\,x`, complex ``(batch, coil, ky, kx)``."""
        return correlate(x, self.response, self.everywhere)

    def adjoint(self, y: Tensor) -> Tensor:
        """:math:`(G - I)^H y`; pixel by pixel, as padding and cropping are adjoint too."""
        return correlate(y, self.adjoint_response, self.everywhere)

    def normal(self, x: Tensor) -> Tensor:
        """:math:`(G - I)^H (G - I)\\,x`; with a periodic boundary one product in place of two."""
        if self.is_periodic:
            return correlate(x, self.normal_response, self.everywhere)
        return self.adjoint(self.forward(x))
