"""One training step of the SPIRiT stack: real convolutions in k-space against products per pixel.

    python benchmarks/spirit_step.py

The reference does what the original study did: four real convolutions for each complex one. Both
have the same weights, data consistency and loss, and take turns in one process. Prints one JSON
object; ``ratio`` is the reference's median time over ours.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from kscout.recon import SpiritNet
from kscout.sampling import Budget, build_sampler

Step = Callable[["Problem"], Tensor]


class Problem:
    """Inputs and weights that both ways share."""

    def __init__(self, options: argparse.Namespace) -> None:
        generator = torch.Generator().manual_seed(0)
        shape = (options.batch, options.coils, *options.plane)
        target = torch.randn(shape, dtype=torch.complex64, generator=generator)
        mask = build_sampler("variable_density", Budget.of(shape[2:], acceleration=4), 0).mask()
        self.target = target.to(options.device)
        self.mask = mask.float().to(options.device)
        self.kspace = self.target * self.mask
        net = SpiritNet(options.coils, n_blocks=options.blocks, kernel_size=options.kernel_size)
        self.net = net.to(options.device)


def step_kscout(problem: Problem) -> Tensor:
    """Forward and backward as in training; returns the completed k-space."""
    output: Tensor = problem.net(problem.kspace, problem.mask)
    error = (output - problem.target).abs().square().sum()
    (error / problem.target.abs().square().sum()).backward()
    return output.detach()


def step_reference(problem: Problem) -> Tensor:
    """The same with real and imaginary parts convolved apart."""
    net, target, missing = problem.net, problem.target, 1 - problem.mask
    y_re, y_im = x_re, x_im = problem.kspace.real, problem.kspace.imag
    for block in range(net.n_blocks):
        kernel = net.kernel(block)
        re, im = kernel.real, kernel.imag
        estimate_re = _convolve(x_re, re) - _convolve(x_im, im)
        estimate_im = _convolve(x_re, im) + _convolve(x_im, re)
        x_re, x_im = y_re + missing * estimate_re, y_im + missing * estimate_im
    error = ((x_re - target.real).square() + (x_im - target.imag).square()).sum()
    (error / target.abs().square().sum()).backward()
    return torch.complex(x_re, x_im).detach()


def _convolve(x: Tensor, kernel: Tensor) -> Tensor:
    return conv2d(x, kernel, padding=kernel.shape[-1] // 2)


STEPS: dict[str, Step] = {"reference": step_reference, "kscout": step_kscout}


def timed(name: str, problem: Problem) -> tuple[float, Tensor, Tensor]:
    """Seconds, output and kernel gradient of one step."""
    problem.net.zero_grad()
    _synchronise(problem)
    start = time.perf_counter()
    output = STEPS[name](problem)
    _synchronise(problem)
    seconds = time.perf_counter() - start
    gradient = problem.net.kernels.grad
    assert gradient is not None
    return seconds, output, gradient.clone()


def _synchronise(problem: Problem) -> None:
    if problem.kspace.is_cuda:
        torch.cuda.synchronize()


def peak_memory(name: str, options: argparse.Namespace) -> int:
    """Bytes that two steps add to what the inputs take; call it in a fresh process.

    On the CPU, growth of the process's largest resident size, thread pools and FFT plans included.
    Two steps, because in training the first leaves gradients behind that the second adds to.
    """
    torch.set_num_threads(options.threads)
    problem = Problem(options)
    if problem.kspace.is_cuda:
        before = torch.cuda.memory_allocated()
    else:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2):
        STEPS[name](problem)
    if problem.kspace.is_cuda:
        return torch.cuda.max_memory_allocated() - before
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return grown if sys.platform == "darwin" else grown * 1024


def relative_error(value: Tensor, reference: Tensor) -> float:
    """Largest error over the largest modulus."""
    return float((value - reference).abs().max() / reference.abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--coils", type=int, default=8)
    parser.add_argument("--plane", type=int, nargs=2, default=(121, 145), metavar=("KY", "KX"))
    parser.add_argument("--kernel-size", type=int, default=11)
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()

    # First, while this process is small: a child's largest size starts from its parent's.
    memory = {}
    for name in STEPS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            memory[name] = pool.apply(peak_memory, (name, options))

    torch.set_num_threads(options.threads)
    problem = Problem(options)
    (_, expected, expected_gradient), (_, output, gradient) = (timed(n, problem) for n in STEPS)
    error = max(relative_error(output, expected), relative_error(gradient, expected_gradient))
    rounds = [[timed(name, problem)[0] for name in STEPS] for _ in range(options.repeats)]
    median = dict(zip(STEPS, map(statistics.median, zip(*rounds, strict=True)), strict=True))
    print(
        json.dumps(
            {
                "ratio": median["reference"] / median["kscout"],
                "seconds_reference": median["reference"],
                "seconds_kscout": median["kscout"],
                "max_rel_error": error,
                "peak_memory_ratio": memory["reference"] / memory["kscout"],
                "peak_bytes_reference": memory["reference"],
                "peak_bytes_kscout": memory["kscout"],
                "batch": options.batch,
                "n_coils": options.coils,
                "plane": list(options.plane),
                "kernel_size": options.kernel_size,
                "n_blocks": options.blocks,
                "repeats": options.repeats,
                "n_threads": options.threads,
                "device": options.device,
            }
        )
    )


if __name__ == "__main__":
    main()
