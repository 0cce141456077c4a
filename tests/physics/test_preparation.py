import pytest
import torch

from kscout.errors import UserError
from kscout.physics.preparation import compression, mix_coils, noise_covariance, whitening
from laws import complex_normal, linear, relative_error

DOUBLE = torch.complex128


def noisy_coils(n_coils: int, n: int) -> torch.Tensor:
    """Correlated noise of unequal level, ``(coil, sample)``."""
    levels = torch.logspace(-2, 1, n_coils, dtype=torch.float64)[:, None]
    mixing = complex_normal((n_coils, n_coils), 1, DOUBLE)
    return levels * (mixing @ complex_normal((n_coils, n), 2, DOUBLE))


@pytest.mark.parametrize("n_coils", [1, 3, 8])
def test_whitened_noise_has_unit_covariance(n_coils: int) -> None:
    noise = noisy_coils(n_coils, 501)
    matrix = whitening(noise_covariance(noise))
    white = mix_coils(noise.reshape(n_coils, 3, 167), matrix).flatten(1)
    assert torch.allclose(noise_covariance(white), torch.eye(n_coils, dtype=DOUBLE), atol=1e-9)
    assert torch.equal(matrix, matrix.tril())


def test_the_covariance_is_that_of_the_noise() -> None:
    mixing = complex_normal((4, 4), 3, DOUBLE)
    noise = mixing @ complex_normal((4, 200_000), 4, DOUBLE)
    assert relative_error(noise_covariance(noise), mixing @ mixing.mH) < 0.02


def test_noise_that_cannot_be_whitened_is_refused() -> None:
    noise = complex_normal((3, 50))
    for singular in (torch.cat([noise, noise[:1]]), torch.cat([noise, 0 * noise[:1]])):
        with pytest.raises(UserError, match="singular"):
            whitening(noise_covariance(singular))
    with pytest.raises(UserError, match="2 samples of noise are too few for 3 coils"):
        noise_covariance(noise[:, :2])


def test_compression_to_all_coils_is_unitary() -> None:
    kspace = noisy_coils(5, 77).reshape(5, 7, 11)
    matrix = compression(kspace, 5)
    assert torch.allclose(matrix @ matrix.mH, torch.eye(5, dtype=DOUBLE), atol=1e-12)
    assert relative_error(mix_coils(mix_coils(kspace, matrix), matrix.mH), kspace) < 1e-12


def test_compressed_coils_are_ordered_by_energy_and_uncorrelated() -> None:
    kspace = noisy_coils(6, 90).reshape(6, 9, 10)
    compressed = mix_coils(kspace, compression(kspace, 4)).flatten(1)
    gram = compressed @ compressed.mH
    energies = gram.diagonal().real
    assert (energies.diff() < 0).all()
    assert (gram - torch.diag(gram.diagonal())).abs().max() < 1e-9 * energies[0]
    # No other orthonormal combinations keep more: the singular values squared.
    best = torch.linalg.svdvals(kspace.flatten(1)).square()
    assert torch.allclose(energies, best[:4])


def test_few_sources_survive_compression_whole() -> None:
    kspace = torch.einsum("cs,syx->cyx", complex_normal((8, 3), 5), complex_normal((3, 7, 9), 6))
    matrix = compression(kspace, 3)
    assert relative_error(mix_coils(mix_coils(kspace, matrix), matrix.mH), kspace) < 1e-5
    for n in (0, 9):
        with pytest.raises(UserError, match=f"8 coils cannot become {n}: valid is 1 to 8"):
            compression(kspace, n)


def test_mixing_is_linear_and_keeps_precision() -> None:
    matrix = complex_normal((2, 3), 7, DOUBLE)
    linear(lambda x: mix_coils(x, matrix), (4, 3, 5, 6))
    assert mix_coils(complex_normal((4, 3, 5, 6)), matrix).dtype == torch.complex64
