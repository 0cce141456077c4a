"""Files reconstructed by methods that calibrate themselves, and off the grid."""

import re
import signal
import subprocess
import sys
import time
from itertools import product

import h5py
import nibabel
import numpy as np
import pytest
import torch
from rich.console import Console

from classical.phantom import error, phantom
from commands import kscout, refused
from kscout.classical import METHODS, spirit, spirit_non_cartesian
from kscout.data import DATA
from kscout.data.formats import FORMATS
from kscout.data.formats.bart import N_DIMS
from kscout.data.writers import write_hdf5, write_scan
from kscout.errors import UserError
from kscout.experiment.config import options_of
from kscout.experiment.recon import Request, open_reconstruction
from kscout.physics.coils import root_sum_of_squares
from kscout.physics.fourier import kspace_to_image
from kscout.physics.nufft import image_to_samples, radial
from kscout.sampling import Budget, build_sampler
from laws import complex_normal
from mrd_files import Line, lines_of, space_2d, write_mrd

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def scan():
    return phantom(3, noise=0.01)


@pytest.fixture
def file(scan, tmp_path):
    """The phantom as it was acquired."""
    write_hdf5(tmp_path / "scan.h5", scan.kspace * scan.mask)
    return tmp_path / "scan.h5"


def reconstruct(file, *options, **request):
    with open_reconstruction(file, Request(options=options, **request), QUIET) as opened:
        return opened.read_all()


@pytest.mark.parametrize("name", [name for name in METHODS if name != "grappa"])
def test_a_file_is_reconstructed_as_its_array_is(scan, file, name):
    expected = METHODS[name](scan.kspace * scan.mask, scan.mask, scan.acs, n_iterations=7)
    found = reconstruct(file, "n_iterations=7", method=name.replace("_", "-"))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_mask_takes_points_away_and_the_error_is_told(scan, tmp_path, capsys):
    write_hdf5(tmp_path / "full.h5", scan.kspace)
    np.save(tmp_path / "m.npy", scan.mask.numpy())
    expected = spirit(scan.kspace * scan.mask, scan.mask, scan.acs)
    out = tmp_path / "o.npy"
    words = ("recon", tmp_path / "full.h5", "--mask", tmp_path / "m.npy", "--out", out)
    ended = kscout(capsys, *words)
    assert ended.code == 0, ended.err
    image, true = (root_sum_of_squares(kspace_to_image(k)) for k in (expected, scan.kspace))
    np.testing.assert_allclose(np.load(out), image, rtol=1e-4, atol=1e-5)
    nmse = float(((image - true).square().sum((1, 2)) / true.square().sum((1, 2))).mean())
    whole = float((image - true).square().sum() / true.square().sum())
    said = f"image NMSE {nmse:.3g} (mean over slices: 3), {whole:.3g} of all at once"
    assert said in ended.out
    assert "ACS: 15 x 15 (ky, kx), found" in ended.out
    with h5py.File(tmp_path / "full.h5") as whole:
        assert whole["kspace"].shape == scan.kspace.shape


def test_a_fully_sampled_file_stays_as_it_is(scan, tmp_path, capsys):
    write_hdf5(tmp_path / "full.h5", scan.kspace)
    assert torch.equal(reconstruct(tmp_path / "full.h5"), scan.kspace)
    ended = kscout(capsys, "recon", tmp_path / "full.h5", "--out", tmp_path / "o.nii")
    assert "nothing is missing" in ended.out
    assert "NMSE" not in ended.out


def test_only_the_slices_of_a_picture_are_reconstructed(tmp_path, capsys):
    scan = phantom(15)
    write_hdf5(tmp_path / "full.h5", scan.kspace)
    np.save(tmp_path / "m.npy", scan.mask.numpy())
    words = ("recon", tmp_path / "full.h5", "n_iterations=1", "--mask", tmp_path / "m.npy")
    assert "(mean over slices: 12)" in kscout(capsys, *words, "--out", tmp_path / "o.png").out


def with_noise(path, scan, mixing, level=0.05):
    """The phantom with noise that coils share, and a noise scan, as HDF5."""
    noise = level * mixing @ complex_normal((4, 5000), 7)
    kspace = scan.kspace + level * torch.einsum(
        "dc,scyx->sdyx", mixing, complex_normal(tuple(scan.kspace.shape), 8)
    )
    write_hdf5(path, kspace * scan.mask)
    with h5py.File(path, "r+") as opened:
        opened["noise"] = noise.numpy()
    return kspace


def test_noise_is_made_white_and_coils_come_back_as_they_were(tmp_path):
    scan = phantom(2)
    mixing = torch.diag(torch.tensor([0.2, 0.5, 1.0, 4.0])) + 0.2 * complex_normal((4, 4), 3)
    kspace = with_noise(tmp_path / "a.h5", scan, mixing)
    white = reconstruct(tmp_path / "a.h5")
    plain = reconstruct(tmp_path / "a.h5", prewhiten=False)
    acquired = scan.mask.expand_as(white)
    torch.testing.assert_close(white[acquired], kspace[acquired], rtol=1e-4, atol=1e-4)
    assert error(white[:, :3], scan.kspace[:, :3]) < 0.95 * error(plain[:, :3], scan.kspace[:, :3])


def test_white_noise_of_unit_variance_changes_nothing(tmp_path):
    scan = phantom(1)
    with_noise(tmp_path / "a.h5", scan, torch.eye(4) + 0j)
    white = reconstruct(tmp_path / "a.h5")
    plain = reconstruct(tmp_path / "a.h5", prewhiten=False)
    assert error(white, plain) < 0.02


def test_compression_to_fewer_coils_costs_little(scan, file):
    """SENSE sees the same in a turned set of coils; SPIRiT nearly, for its kernel knows them."""
    all_of_them, fewer = (reconstruct(file, n_coils=n, method="sense") for n in (4, 3))
    assert error(all_of_them, reconstruct(file, method="sense")) < 0.01
    assert error(fewer, scan.kspace) < 0.2
    for n in (4, 3):
        assert error(reconstruct(file, n_coils=n), reconstruct(file)) < 0.15


def test_silent_coils_and_slices_stay_silent(scan, tmp_path, capsys):
    kspace = scan.kspace * scan.mask
    kspace[:, 2] = 0
    kspace[1] = 0
    write_hdf5(tmp_path / "a.h5", kspace)
    for name in METHODS:
        if name == "grappa":
            continue
        found = reconstruct(tmp_path / "a.h5", method=name)
        assert not found[:, 2].any()
        assert not found[1].any()
        assert error(found[::2, [0, 1, 3]], scan.kspace[::2, [0, 1, 3]]) < 0.25
    ended = kscout(capsys, "recon", tmp_path / "a.h5", "--out", tmp_path / "o.nii")
    assert "note: coil 2 holds nothing but zeros" in ended.out


@pytest.mark.parametrize("name", ["spirit", "l1_spirit", "sense"])
def test_a_silent_coil_stays_out_of_white_coils(tmp_path, name):
    scan = phantom(1)
    silent = torch.diag(torch.tensor([0.5, 1.0, 0.0, 2.0])).to(torch.complex64)
    with_noise(tmp_path / "a.h5", scan, silent)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        kspace = file["kspace"][()]
        kspace[:, 2] = 0
        file["kspace"][...] = kspace
        noise = file["noise"][()]
        noise[2] = complex_normal((5000,), 9)  # of a coil that hears noise, and no signal
        file["noise"][...] = noise
    found = reconstruct(tmp_path / "a.h5", method=name)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        heard = [0, 1, 3]
        file["kspace"], file["noise"] = kspace[:, heard], noise[heard]
    assert not found[:, 2].any()
    expected = reconstruct(tmp_path / "b.h5", method=name)
    torch.testing.assert_close(found[:, heard], expected, rtol=1e-4, atol=1e-5)


def test_slices_with_masks_of_their_own_are_each_reconstructed_by_it(tmp_path, capsys):
    scan = phantom(3)
    budget = Budget.of((48, 45), acceleration=3, acs="square", acs_size=15)
    masks = torch.stack([build_sampler("poisson_disc", budget, seed=i).mask() for i in range(3)])
    write_hdf5(tmp_path / "a.h5", scan.kspace * masks[:, None])
    found = reconstruct(tmp_path / "a.h5")
    for i in range(3):
        one = slice(i, i + 1)
        expected = spirit(scan.kspace[one] * masks[i], masks[i], (15, 15))
        torch.testing.assert_close(found[one], expected, rtol=1e-5, atol=1e-5)
    ended = kscout(capsys, "recon", tmp_path / "a.h5", "--out", tmp_path / "o.nii")
    assert "note: 3 slices lack points that others have" in ended.out
    few, most = (int(f(mask.sum() for mask in masks)) for f in (min, max))
    between = f"{few}" if few == most else f"{few} to {most}"
    said = f"slices differ: each has {between} points, and all of them together"
    assert said in ended.out
    assert said in " ".join(kscout(capsys, "data", "info", tmp_path / "a.h5").out.split())


def test_halves_of_two_slices_are_no_full_scan(tmp_path, capsys):
    kspace = phantom(2).kspace
    kspace[0, ..., ::2], kspace[1, ..., 1::2] = 0, 0
    write_hdf5(tmp_path / "a.h5", kspace)
    assert "slice 0: no ACS" in refused(capsys, "recon", tmp_path / "a.h5")
    for kind in ("volume", "files"):
        paths = {"path": tmp_path / "a.h5", "n_blocks": 3}
        if kind == "files":
            write_hdf5(tmp_path / "b.h5", phantom(2).kspace)
            paths = {"train": (tmp_path / "a.h5",), "test": (tmp_path / "b.h5",)}
        with pytest.raises(UserError, match="points of slice 0 are zero in every coil"):
            DATA[kind](**paths)


def test_a_run_does_not_take_a_slice_that_lacks_its_points(finished, tmp_path, capsys):
    kspace = DATA["digits"](n_train=1, n_val=1, n_test=2, split_seed=9)["test"].kspace
    kspace[1, ..., 12:16] = 0
    np.save(tmp_path / "a.npy", kspace.numpy())
    text = refused(capsys, "recon", tmp_path / "a.npy", "--method", finished)
    assert "slice 1: lacks" in text


def test_what_was_reconstructed_lies_where_the_scan_lay(scan, file, tmp_path):
    affine = np.array([[0, 2.0, 0, -7], [-3.0, 0, 0, 5], [0, 0, 4.0, 1], [0, 0, 0, 1]])
    with h5py.File(file, "r+") as opened:
        opened.attrs["affine"] = affine
    with open_reconstruction(file, Request(options=["n_iterations=1"]), QUIET) as opened:
        write_scan(tmp_path / "a.nii", opened, lambda done, total: None)
    image = nibabel.load(tmp_path / "a.nii")
    np.testing.assert_allclose(image.affine, affine)
    assert image.header.get_sform(coded=True)[1] == image.header.get_qform(coded=True)[1] == 1
    assert image.header.get_xyzt_units()[0] == "mm"


def test_samples_off_the_grid_are_not_taken_for_a_plane(tmp_path, capsys):
    np.save(tmp_path / "y.npy", complex_normal((4, 12, 4000)).numpy())
    text = refused(capsys, "recon", tmp_path / "y.npy", "--out", tmp_path / "o.nii")
    assert "a plane of 12 x 4000 is that of samples off the grid: these need --trajectory" in text
    assert not (tmp_path / "o.nii").exists()


def test_nothing_that_is_read_is_written_over(file, scan, capsys, tmp_path):
    np.save(tmp_path / "m.npy", scan.mask.numpy())
    before = (tmp_path / "m.npy").read_bytes()
    words = ("recon", file, "--mask", tmp_path / "m.npy", "--out", tmp_path / "m.npy")
    assert "m.npy is read here" in refused(capsys, *words)
    assert (tmp_path / "m.npy").read_bytes() == before


def test_no_option_is_of_a_method_and_of_a_format_at_once():
    for method, entry in product(METHODS.values(), FORMATS.values()):
        assert not set(options_of(method).model_fields) & set(entry.open.__kwdefaults__ or {})


def test_help_names_every_option_of_every_method(capsys):
    said = kscout(capsys, "recon", "--help").out
    for method in (*METHODS.values(), spirit_non_cartesian):
        for option in options_of(method).model_fields:
            assert option in said


BAD_WORDS = {
    "no such method": (["--method", "grapa"], "'grapa' is no method and no run folder"),
    "unknown option": (
        ["n_iter=3"],
        "unknown option n_iter: valid of spirit is damping",
    ),
    "bad value": (["kernel_size=4"], "kernel_size is 4"),
    "not a word": (["fast"], "unknown option fast"),
    "format's option": (["repetition=2"], "unknown option repetition"),
    "ACS in words": (["--acs", "big"], "'big' is not a size: valid is KYxKX"),
    "ACS too large": (["--acs", "16x15"], "--acs 16x15 is not fully sampled: a centred"),
    "ACS of nothing": (["--acs", "0x3"], "'0x3' is not a size"),
    "ACS too small": (["--acs", "7x7"], "slice 0: a fully sampled centre of 7x7 gives 9 equations"),
    "too many coils": (["--coils", "5"], "4 coils cannot become 5: valid is 1 to 4"),
    "a matrix without need": (["--matrix", "9x9"], "--matrix does not go with a file without"),
    "no mask": (["--mask", "none.npy"], "mask file none.npy does not exist"),
    "itself": (["--out", "scan.h5"], "scan.h5 is read here"),
    "a folder": (["--out", ".."], ".. is a folder"),
    "no format": (["--out", "scan.tiff"], "scan.tiff: the format is not known"),
}


@pytest.mark.parametrize("name", BAD_WORDS)
def test_wrong_words_are_refused_and_nothing_is_left(file, capsys, monkeypatch, name):
    words, said = BAD_WORDS[name]
    monkeypatch.chdir(file.parent)
    assert said in refused(capsys, "recon", "scan.h5", *words)
    assert [path.name for path in file.parent.iterdir()] == ["scan.h5"]


def test_masks_that_do_not_fit_are_refused(scan, file, capsys, tmp_path):
    np.save(tmp_path / "other.npy", np.ones((48, 44), bool))
    np.save(tmp_path / "full.npy", np.ones((48, 45), bool))
    for name, said in (
        ("other.npy", "a mask of 48x44: "),
        ("full.npy", f"lacks {int((~scan.mask).sum())} of the 2160 points"),
    ):
        assert said in refused(capsys, "recon", file, "--mask", tmp_path / name)


def test_a_run_brings_its_own_mask(finished, file, capsys):
    for words in (["--mask", "m.npy"], ["--acs", "9x9"], ["--coils", "2"], ["--no-prewhiten"]):
        text = refused(capsys, "recon", file, "--method", finished, *words)
        assert f"{words[0]} does not go with {finished}" in text


def test_a_scan_without_a_centre_is_refused(scan, tmp_path, capsys):
    kspace = scan.kspace * scan.mask
    kspace[..., 24, 22] = 0
    write_hdf5(tmp_path / "a.h5", kspace)
    assert "no ACS: no centre of 4x4 points or more is" in refused(
        capsys, "recon", tmp_path / "a.h5"
    )


def test_few_equations_are_told(file, capsys):
    words = ("recon", file, "--out", file.with_name("o.nii"))
    assert "note: the ACS gives 121 equations for 99 weights" in kscout(capsys, *words).out
    assert "equations for" not in kscout(capsys, *words, "--coils", 2).out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_command_that_is_ended_leaves_nothing_half_written(tmp_path, number):
    big = phantom(1, (160, 160)).kspace.repeat(400, 1, 1, 1)
    np.save(tmp_path / "full.npy", big.numpy())
    np.save(tmp_path / "m.npy", phantom(1, (160, 160)).mask.numpy())
    code = "from kscout.cli import main; main()"
    words = ["recon", "full.npy", "--mask", "m.npy", "--out", "o.h5"]
    command = [sys.executable, "-c", code, *words]
    with subprocess.Popen(command, cwd=tmp_path, stdout=-1, stderr=-1) as process:
        while not list(tmp_path.glob(".partial-*")):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(30) != 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full.npy", "m.npy"]


@pytest.mark.parametrize("name", [name for name in METHODS if name != "grappa"])
def test_a_separate_calibration_is_used(tmp_path, name):
    scan = phantom(2, n_coils=6, noise=0.01)
    mask = torch.zeros(48, 45, dtype=torch.bool)
    mask[:, ::2] = True  # whose own centre calibrates nothing
    rows, columns = slice(0, 48), slice(15, 30)
    lines = [
        Line(7 * scan.kspace[i, :, :, step].numpy(), (step, 0), (20,), {"slice": i})
        for i in range(2)
        for step in range(15, 30)
    ]
    for i in range(2):
        lines += lines_of(scan.kspace[i], range(0, 45, 2), counters={"slice": i})
    space = space_2d(48, 45, acceleration=2, calibration="separate")
    expected = METHODS[name](
        scan.kspace * mask, mask, (48, 15), calibration=scan.kspace[..., rows, columns]
    )
    left = error(expected, scan.kspace) / error(scan.kspace * mask, scan.kspace)
    assert left < (0.7 if name == "spirit_pocs" else 0.35)
    file = write_mrd(tmp_path / "a.mrd", space, lines)
    found = reconstruct(file, method=name)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    fewer = reconstruct(file, method=name, n_coils=5)
    assert error(fewer, expected) < 0.1
    noise = Line(0.01 * complex_normal((6, 4000), 9).numpy(), flags=(19,))
    whitened = reconstruct(write_mrd(tmp_path / "b.mrd", space, [noise, *lines]), method=name)
    assert error(whitened, expected) < 0.05
    assert not torch.equal(whitened, found)


def test_a_separate_calibration_without_a_centre_is_not_used(tmp_path, capsys):
    scan = phantom(noise=0.01)
    mask = torch.zeros(48, 45, dtype=torch.bool)
    mask[:, ::2] = mask[:, 15:30] = True
    lines = lines_of(7 * scan.kspace[0], [40, 41], flags=(20,))
    lines += lines_of(scan.kspace[0], torch.nonzero(mask[0]).flatten().tolist())
    space = space_2d(48, 45, acceleration=2, calibration="separate")
    file = write_mrd(tmp_path / "a.mrd", space, lines)
    expected = spirit(scan.kspace * mask, mask, (48, 15))
    assert error(reconstruct(file), expected) < 0.02
    said = kscout(capsys, "recon", file, "--out", tmp_path / "o.npy").out
    assert "note: the separate calibration has no centre: the scan's own is used" in said


@pytest.mark.parametrize("name", [name for name in METHODS if name != "grappa"])
def test_a_coil_that_is_silent_in_the_centre_alone_is_refused(name):
    scan = phantom(2, noise=0.01)
    centre = scan.kspace[..., 17:32, 15:30].clone()
    centre[:, 2] = 0
    with pytest.raises(UserError, match="coil 2 holds nothing but zeros in the fully sampled"):
        METHODS[name](scan.kspace, scan.mask, scan.acs, calibration=centre)
    with pytest.raises(UserError, match=r"calibration is torch.complex64 .2, 4, 3, 3.: valid is"):
        METHODS[name](scan.kspace, scan.mask, scan.acs, calibration=centre[..., :3, :3])
    double = scan.kspace[..., 17:32, 15:30].to(torch.complex128)
    found = METHODS[name](scan.kspace, scan.mask, scan.acs, calibration=double)
    assert found.dtype == torch.complex64


def test_what_compression_loses_is_told_in_the_coils_of_the_scan(scan, file, capsys, tmp_path):
    words = ("recon", file, "--out", tmp_path / "o.npy", "n_iterations=1", "--coils")
    assert "compressed coils lose up to 0" in kscout(capsys, *words, 4).out
    found = re.search(r"lose up to (\S+) % of a slice's energy(.*)", kscout(capsys, *words, 1).out)
    kspace = scan.kspace * scan.mask
    least = min(
        float(torch.linalg.svdvals(one.flatten(1))[1:].square().sum() / one.norm() ** 2)
        for one in kspace
    )
    assert float(found[1]) / 100 >= 0.99 * least  # no one coil could lose less of every slice
    assert found[2] == ", which is much: more may do better"


def test_points_that_a_method_does_not_reach_are_told(scan, tmp_path, capsys):
    mask = build_sampler(
        "variable_density", Budget.of((48, 45), acceleration=6, acs="square", acs_size=12), 0
    ).mask()
    write_hdf5(tmp_path / "a.h5", scan.kspace[:1] * mask)
    words = ("recon", tmp_path / "a.h5", "--out", tmp_path / "o.npy")
    assert "nor filled in" not in kscout(capsys, *words).out
    said = kscout(capsys, *words, "--method", "grappa").out
    assert re.search(r"up to \d+ points of a slice \(\d+ %\) were neither acquired", said)


def test_copies_of_a_coil_are_no_obstacle(scan, tmp_path):
    twice = torch.cat([scan.kspace, scan.kspace[:, :1]], 1)
    write_hdf5(tmp_path / "a.h5", twice * scan.mask)
    assert error(reconstruct(tmp_path / "a.h5", "kernel_size=3"), twice) < 0.1


BAD_SAMPLES = {
    "a place too few": (lambda y, t: (y, t[1:]), [], "has 2639 places: "),
    "three axes": (lambda y, t: (y, np.pad(t, ((0, 0), (0, 1)))), [], "is real (sample, 2)"),
    "no numbers": (lambda y, t: (y, t * np.nan), [], "holds NaN or infinity"),
    "infinite": (lambda y, t: (y * np.inf, t), [], "slice 0 holds NaN or infinity"),
    "real": (lambda y, t: (y.real, t), [], "k-space is complex"),
    "one axis": (lambda y, t: (y[0, 0], t), [], "valid is (coil, sample) or"),
    "small grid": (lambda y, t: (y, t), ["--matrix", "20x20"], "the trajectory has a point"),
    "no grid": (lambda y, t: (y, t), ["--matrix", "0x20"], "'0x20' is not a size"),
    "mask": (lambda y, t: (y, t), ["--mask", "m.npy"], "--mask does not go with --trajectory"),
    "method": (lambda y, t: (y, t), ["--method", "sense"], "--method does not go with"),
    "1/pixel": (lambda y, t: (y, t / 44), ["--matrix", "48x45"], "valid units are these, +-64"),
    "radians": (lambda y, t: (y, t / 7), [], "reaches 3.14 cycles per field of view"),
    "absurd grid": (
        lambda y, t: (y, t),
        ["--matrix", "99x999"],
        "44 x 44 points: valid is up to 3",
    ),
    "large centre": (lambda y, t: (y, t), ["acs_size=99"], "acs_size 99 is larger"),
    "option": (lambda y, t: (y, t), ["weights=2"], "unknown key weights"),
}


class TestOffTheGrid:
    @pytest.fixture
    def spokes(self, scan, tmp_path):
        trajectory = radial(60, 44)
        samples = image_to_samples(kspace_to_image(scan.kspace), trajectory)
        np.save(tmp_path / "y.npy", samples.numpy())
        np.save(tmp_path / "t.npy", trajectory.numpy())
        return samples, trajectory

    def words(self, folder, *more):
        return ("recon", folder / "y.npy", "--trajectory", folder / "t.npy", *more)

    def test_a_file_is_reconstructed_as_its_array_is(self, spokes, tmp_path, capsys):
        samples, trajectory = spokes
        out = tmp_path / "o.npy"
        more = ("n_iterations=5", "acs_size=16", "--matrix", "48x45", "--out", out)
        ended = kscout(capsys, *self.words(tmp_path, *more))
        assert ended.code == 0, ended.err
        expected = spirit_non_cartesian(samples, trajectory, (48, 45), acs_size=16, n_iterations=5)
        image = root_sum_of_squares(kspace_to_image(expected))
        np.testing.assert_allclose(np.load(out), image, rtol=1e-3, atol=1e-4)

    def test_silent_coils_stay_silent(self, spokes, tmp_path):
        samples, _ = spokes
        quiet = samples.clone()
        quiet[:, 2], quiet[1] = 0, 0
        np.save(tmp_path / "y.npy", quiet.numpy())
        np.save(tmp_path / "z.npy", samples[:, [0, 1, 3]].numpy())
        request = {"trajectory": tmp_path / "t.npy", "matrix": "48x45"}
        options = ("acs_size=16", "n_iterations=3")
        found = reconstruct(tmp_path / "y.npy", *options, **request)
        assert not found[:, 2].any()
        assert not found[1].any()
        expected = reconstruct(tmp_path / "z.npy", *options, **request)
        torch.testing.assert_close(found[::2, [0, 1, 3]], expected[::2])

    def test_a_slice_that_is_not_there_is_refused(self, spokes, tmp_path):
        request = Request(trajectory=tmp_path / "t.npy")
        with (
            open_reconstruction(tmp_path / "y.npy", request, QUIET) as opened,
            pytest.raises(UserError, match="slice 3 is out of range: valid is 0 to 2"),
        ):
            opened.read(3)

    def test_the_grid_is_found(self, spokes, tmp_path, capsys):
        out = tmp_path / "o.npy"
        assert kscout(capsys, *self.words(tmp_path, "acs_size=16", "--out", out)).code == 0
        assert np.load(out).shape == (3, 44, 44)

    def test_files_of_bart(self, spokes, tmp_path):
        samples, trajectory = spokes
        spoke = (60, 44)
        places = torch.cat([trajectory, torch.zeros(len(trajectory), 1)], 1).reshape(*spoke, 3)
        dims = [1, *spoke[::-1], 4, *[1] * 9, 3, 1, 1]
        y = samples.reshape(3, 4, *spoke).permute(3, 2, 1, 0).numpy()
        for name, array, sizes in (("y", y, dims), ("t", places.permute(2, 1, 0).numpy(), None)):
            sizes = sizes or [*array.shape, *[1] * (N_DIMS - 3)]
            (tmp_path / f"{name}.hdr").write_text(f"# Dimensions\n{' '.join(map(str, sizes))}\n")
            array.astype("<c8").ravel(order="F").tofile(tmp_path / f"{name}.cfl")
        images = []
        for suffix in ("npy", "cfl"):
            request = {"trajectory": tmp_path / f"t.{suffix}", "matrix": "48x45"}
            options = ("acs_size=16", "n_iterations=3")
            images.append(reconstruct(tmp_path / f"y.{suffix}", *options, **request))
        torch.testing.assert_close(*images)

    @pytest.mark.parametrize("name", BAD_SAMPLES)
    def test_what_does_not_fit_is_refused(self, spokes, tmp_path, capsys, name):
        spoil, more, said = BAD_SAMPLES[name]
        y, t = spoil(*(array.numpy() for array in spokes))
        np.save(tmp_path / "y.npy", y)
        np.save(tmp_path / "t.npy", t)
        out = tmp_path / "o.nii"
        assert said in refused(capsys, *self.words(tmp_path, *more, "--out", out))
        assert not out.exists()
