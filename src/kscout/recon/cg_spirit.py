"""SPIRiT with one kernel for all masks, solved by conjugate gradients."""

from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from kscout.physics.calibration import normal_equations, solve_kernel
from kscout.physics.solvers import conjugate_gradients, slice_inner
from kscout.physics.spirit import Boundary, correlate, kernel_response, odd, transform_shape
from kscout.recon.base import Reconstructor

N_SLICES, N_EQUATIONS = 100, 200_000
"""The most that a calibration takes: many slices with few points each generalise better."""

REGULARISATION = 1e-3
"""Of the kernel, relative to the mean eigenvalue of its normal equations.

With less, only the nearest neighbours count, which masks leave out: on brains at R = 4,
conjugate gradients have then not arrived after four times as many iterations.
"""


class CgSpirit(Reconstructor):
    r"""The k-space that agrees best with a SPIRiT kernel and with what was acquired.

    The least-squares problem of Lustig & Pauly (2010), on the grid and as a maximum a posteriori
    estimate: with the kernel's operator :math:`G`, data :math:`y` and mask :math:`m`,

    .. math:: \min_x \sum_c \frac{\|((G - I)\,x)_c\|^2}{s_c^2} + \frac{\|m\,x_c - y_c\|^2}{n_c^2}

    with variances :math:`s_c^2` of the kernel's residual and :math:`n_c^2` of the noise. Without
    noise the acquired points are exact, and only the others are solved for. One kernel, fitted to
    fully sampled slices, serves every mask: what a mask left out is dealt with by the solver. It
    starts from the zero-filled k-space and takes a fixed number of iterations, through which
    kernel, variances and mask can be trained.

    Parameters
    ----------
    n_coils : coils of the data
    seed : of the random kernel that is there before :meth:`calibrate`
    kernel_size : width of the square kernel, odd
    n_iterations : of conjugate gradients
    boundary : what lies outside the sampled plane, ``zero`` or its ``periodic`` continuation
    """

    models_noise = True

    off_centre: Tensor

    def __init__(
        self,
        n_coils: int,
        seed: int = 0,
        *,
        kernel_size: Annotated[
            int, Field(ge=3, description="width of the kernel, odd"), AfterValidator(odd)
        ] = 7,
        n_iterations: Annotated[int, Field(ge=1, description="of conjugate gradients")] = 15,
        boundary: Boundary = "zero",
    ) -> None:
        super().__init__()
        self.n_iterations, self.boundary = n_iterations, boundary
        shape = (n_coils, n_coils, kernel_size, kernel_size)
        generator = torch.Generator().manual_seed(seed)
        initial = torch.randn(shape, dtype=torch.complex64, generator=generator)
        self.weights = nn.Parameter(initial * (2 * n_coils * kernel_size**2) ** -0.5)
        self.log_residual = nn.Parameter(torch.zeros(n_coils))
        self.log_noise = nn.Parameter(torch.zeros(n_coils))
        off_centre = torch.ones(shape)
        off_centre[:, :, kernel_size // 2, kernel_size // 2].fill_diagonal_(0)
        self.register_buffer("off_centre", off_centre)

    @property
    def kernel_size(self) -> int:
        return self.weights.shape[-1]

    def kernel(self) -> Tensor:
        """Complex ``(coil_out, coil_in, kh, kw)``, the weight of a point for itself zero."""
        return self.weights * self.off_centre

    @torch.no_grad()
    def calibrate(self, kspace: Tensor, target: Tensor, coil_scale: Tensor, seed: int) -> None:
        """Kernel and variances from training slices.

        The kernel predicts every point of the target from its neighbours in k-space, noise
        included, over training slices in place of an ACS. Its residual is that of k-space as
        measured: of the target it would be far below the noise, and as neighbouring residuals
        share their errors, the kernel would be trusted too much. Noise is equally strong
        in all coils before they are scaled, so that all tell of one variance.
        """
        device, generator = self.weights.device, torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(kspace), generator=generator)[:N_SLICES]
        x, t = kspace[chosen].to(device), target[chosen].to(device)
        points = _draw_points(x, generator)
        equations = normal_equations(x, t, points, self.kernel_size, self.boundary)
        self.weights.copy_(solve_kernel(*equations, self.kernel_size, REGULARISATION))
        response = self._response(self._residual_kernel(), x)
        errors = [correlate(part, response, x.real.new_ones(1, 1)) for part in x.split(8)]
        residual = torch.cat(errors).abs().square().mean((0, 2, 3))
        smallest = torch.finfo(torch.float32).eps * residual.mean()  # of a coil that sees nothing
        self.log_residual.copy_(residual.clamp_min(smallest).log())
        scale = coil_scale.to(device)
        noise = ((x - t) / scale[:, None, None]).abs().square().mean()
        self.log_noise.copy_((noise * scale.square()).log())

    def _residual_kernel(self) -> Tensor:
        """Of G - I: what a point is expected to be, less what it is."""
        return self.kernel() - (1 - self.off_centre)

    def _response(self, kernel: Tensor, kspace: Tensor) -> Tensor:
        shape = (kspace.shape[-2], kspace.shape[-1])
        size = (self.kernel_size, self.kernel_size)
        return kernel_response(kernel, transform_shape(shape, size, self.boundary))

    def predict(self, kspace: Tensor, mask: Tensor) -> Tensor:
        # Only ratios of variances matter: with their mean taken out, no scale of data overflows.
        spread = ((self.log_residual - self.log_residual.mean()) / 2).exp()
        whitened = self._residual_kernel() / spread[:, None, None, None]
        response = self._response(whitened, kspace)
        adjoint = response.mH.resolve_conj()  # pixel by pixel: padding and cropping are adjoint too
        everywhere = mask.new_ones(1, 1)

        def prior(x: Tensor) -> Tensor:
            return correlate(correlate(x, response, everywhere), adjoint, everywhere)

        # The change of x is Q u, with the preconditioner Q = s^2 (1 - m (1 - q)), where
        # q = n^2 / (n^2 + s^2), and u solves A Q u = b: self-adjoint in the inner product <., Q .>.
        # The data term of A Q, m Q / n^2, is then m (1 - q): without noise nothing is infinite,
        # and the change is zero at the acquired points.
        trust = mask * torch.sigmoid(self.log_residual - self.log_noise)[:, None, None]
        change = spread[:, None, None].square() * (1 - trust)

        def operator(u: Tensor) -> Tensor:
            return prior(change * u) + trust * u

        def inner(a: Tensor, b: Tensor) -> Tensor:
            return slice_inner(a, change * b)

        kspace = kspace * mask
        u = conjugate_gradients(operator, -prior(kspace), self.n_iterations, inner=inner)
        return kspace + change * u


def _draw_points(x: Tensor, generator: torch.Generator) -> list[Tensor]:
    """Points of each slice to fit the kernel at, int64 ``(point, 2)``."""
    n_slices, _, n_rows, n_columns = x.shape
    n_points = min(n_rows * n_columns, max(1, N_EQUATIONS // n_slices))
    orders = [torch.randperm(n_rows * n_columns, generator=generator) for _ in range(n_slices)]
    index = torch.stack(orders)[:, :n_points].to(x.device)
    return list(torch.stack([index // n_columns, index % n_columns], -1))
