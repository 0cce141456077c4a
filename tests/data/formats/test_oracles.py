"""Files from the tools that others use, and files of ours in those tools."""

import shutil
import subprocess

import h5py
import nibabel
import numpy as np
import pytest
import torch

from commands import kscout
from kscout.data.formats import open_scan
from kscout.data.formats.bart import write_cfl
from kscout.physics.coils import root_sum_of_squares
from kscout.physics.fourier import image_to_kspace, kspace_to_image
from kscout.physics.preparation import mix_coils, noise_covariance, whitening
from kscout.sampling import Budget, build_sampler
from kscout.sampling.pattern import find_pattern
from laws import complex_normal, relative_error

SHEPP_LOGAN = "ismrmrd_generate_cartesian_shepp_logan"


def run(tmp_path, tool, *words):
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    subprocess.run([tool, *map(str, words)], cwd=tmp_path, check=True, capture_output=True)


def read_cfl(path):
    dims = [int(n) for n in path.with_suffix(".hdr").read_text().splitlines()[1].split()]
    return np.fromfile(path, "<c8").reshape(dims, order="F")


def test_a_phantom_of_bart(tmp_path):
    run(tmp_path, "bart", "phantom", "-k", "-s8", "-x128", "k")
    run(tmp_path, "bart", "fft", "-i", "-u", "3", "k", "x")
    with open_scan(tmp_path / "k.cfl") as scan:
        assert scan.shape == (1, 8, 128, 128)
        image = kspace_to_image(scan.read(0))
        expected = torch.from_numpy(read_cfl(tmp_path / "x.cfl").reshape(128, 128, 8))
        assert relative_error(image, expected.permute(2, 0, 1)) < 1e-5
        assert find_pattern(scan.sampled()).acs == (128, 128)


@pytest.mark.parametrize("shape", [(1, 3, 12, 16), (2, 1, 7, 9)])
def test_bart_reads_what_is_written(tmp_path, shape):
    images = complex_normal(shape)
    write_cfl(tmp_path / "k.cfl", image_to_kspace(images), shape)
    run(tmp_path, "bart", "fft", "-i", "-u", "3", "k", "x")
    found = torch.from_numpy(read_cfl(tmp_path / "x.cfl").reshape(*shape[2:], *shape[1::-1]))
    assert relative_error(found.permute(3, 2, 0, 1), images) < 1e-5


def test_a_volume_of_bart(tmp_path):
    run(tmp_path, "bart", "phantom", "-3", "-k", "-s2", "-x16", "k")
    run(tmp_path, "bart", "fft", "-i", "-u", "1", "k", "x")
    with open_scan(tmp_path / "k.cfl") as scan:
        expected = torch.from_numpy(read_cfl(tmp_path / "x.cfl").reshape(16, 16, 16, 2))
        assert scan.shape == (16, 2, 16, 16)
        assert relative_error(scan.read_all(), expected.permute(0, 3, 1, 2)) < 1e-5


@pytest.mark.parametrize("acceleration", [1, 2])
def test_the_phantom_of_ismrmrd(tmp_path, acceleration):
    words = ["-m", 64, "-c", 4, "-O", 2, "-a", acceleration, "-w", 16, "-C"]
    run(tmp_path, SHEPP_LOGAN, *words, "-n", 0.001, "-r", 1, "-o", "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        phantom, maps = (file[f"dataset/{name}"][0] for name in ("phantom", "csm"))
        phantom, maps = (x["real"] + 1j * x["imag"] for x in (phantom, maps))
    images = torch.from_numpy(phantom * maps)
    with open_scan(tmp_path / "a.h5") as scan:
        assert scan.shape == (1, 4, 64, 64)
        kspace, noise, points = scan.read(0), scan.noise(), scan.sampled()
        flagged = scan.calibration
    assert noise.shape == (4, 128)
    pattern = find_pattern(points)
    assert pattern.factors == (1, acceleration)
    assert pattern.whole_lines
    if acceleration == 1:
        assert pattern.acs == (64, 64)
    else:
        assert flagged.any(0).nonzero().flatten().tolist() == list(range(24, 40))
        assert pattern.acs[0] == 64
        assert pattern.acs[1] >= 16
    # Its pictures have (phase, readout); ours (readout, phase).
    reference = image_to_kspace(images.mT.to(torch.complex64)) * points
    scale = torch.vdot(reference.flatten(), kspace.flatten()) / reference.norm() ** 2
    assert scale.real > 0
    assert abs(scale.imag) < 1e-3 * scale.real
    assert float((kspace - scale * reference).norm() / kspace.norm()) < 0.02
    white = mix_coils(noise[:, None], whitening(noise_covariance(noise)))[:, 0]
    assert torch.allclose(white @ white.mH / white.shape[1], torch.eye(4) + 0j, atol=1e-4)


@pytest.mark.parametrize("acceleration", [1, 2])
def test_the_phantom_of_ismrmrd_is_reconstructed_from_the_file_alone(
    tmp_path, capsys, acceleration
):
    words = ["-m", 64, "-c", 4, "-O", 2, "-a", acceleration, "-w", 24, "-C"]
    run(tmp_path, SHEPP_LOGAN, *words, "-n", 0.001, "-r", 1, "-o", "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        phantom, maps = (file[f"dataset/{name}"][0] for name in ("phantom", "csm"))
        phantom, maps = (x["real"] + 1j * x["imag"] for x in (phantom, maps))
    true = np.linalg.norm(phantom * maps, axis=0).T
    for out in ("a.npy", "a.nii"):
        ended = kscout(capsys, "recon", tmp_path / "a.h5", "--out", tmp_path / out)
        assert ended.code == 0, ended.err
    assert ("ACS: 64 x 24" in ended.out or "ACS: 64 x 25" in ended.out) == (acceleration == 2)
    image = np.load(tmp_path / "a.npy")[0]
    volume = nibabel.load(tmp_path / "a.nii")
    np.testing.assert_array_equal(volume.get_fdata()[..., 0], image)
    assert image.shape == (64, 64)
    image *= (image * true).sum() / (image**2).sum()
    assert np.linalg.norm(image - true) < 0.1 * np.linalg.norm(true)


def test_an_undersampled_phantom_of_bart_is_reconstructed(tmp_path, capsys):
    run(tmp_path, "bart", "phantom", "-k", "-s8", "-x128", "k")
    with open_scan(tmp_path / "k.cfl") as scan:
        kspace = scan.read_all()
    points = build_sampler(
        "poisson_disc", Budget.of((128, 128), acceleration=3, acs="square", acs_size=24), seed=0
    ).mask()
    write_cfl(tmp_path / "u.cfl", kspace * points, kspace.shape)
    ended = kscout(capsys, "recon", tmp_path / "u.cfl", "--out", tmp_path / "a.npy")
    assert ended.code == 0, ended.err
    true = root_sum_of_squares(kspace_to_image(kspace)).numpy()
    assert np.linalg.norm(np.load(tmp_path / "a.npy") - true) < 0.1 * np.linalg.norm(true)


def test_spokes_of_bart_are_reconstructed(tmp_path, capsys):
    run(tmp_path, "bart", "traj", "-r", "-x64", "-y80", "t")
    run(tmp_path, "bart", "phantom", "-k", "-s4", "-t", "t", "y")
    run(tmp_path, "bart", "phantom", "-k", "-s4", "-x64", "k")
    words = ("recon", tmp_path / "y.cfl", "--trajectory", tmp_path / "t.cfl")
    ended = kscout(capsys, *words, "--matrix", "64x64", "--out", tmp_path / "a.npy")
    assert ended.code == 0, ended.err
    with open_scan(tmp_path / "k.cfl") as scan:
        true = root_sum_of_squares(kspace_to_image(scan.read(0))).numpy()
    image = np.load(tmp_path / "a.npy")[0]
    image *= (image * true).sum() / (image**2).sum()
    assert np.linalg.norm(image - true) < 0.2 * np.linalg.norm(true)


def test_repetitions_of_ismrmrd(tmp_path):
    words = ["-m", 32, "-c", 2, "-a", 2, "-w", 8, "-r", 2, "-o", "a.h5"]
    run(tmp_path, SHEPP_LOGAN, *words)
    lines = []
    for repetition in (0, 1):
        with open_scan(tmp_path / "a.h5", {"repetition": repetition}) as scan:
            lines.append(scan.sampled().any(0))
            image = root_sum_of_squares(kspace_to_image(scan.read(0)))
            assert image.shape == (32, 32)
    assert (lines[0] | lines[1]).all()
    assert not lines[0].all()
