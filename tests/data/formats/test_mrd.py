"""ISMRMRD files made by the test: every case that scanners write."""

import h5py
import ismrmrd
import nibabel
import numpy as np
import pytest
import torch

from kscout.data.formats import open_scan
from kscout.data.writers import write_scan
from kscout.errors import UserError
from kscout.physics.coils import root_sum_of_squares
from kscout.physics.fourier import kspace_to_image, readout_to_space, space_to_readout
from kscout.sampling import FIXED_MASKS, Budget
from laws import complex_normal, relative_error
from mrd_files import Line, Space, lines_of, oversampled, plane, space_2d, write_mrd

NOISE = ismrmrd.ACQ_IS_NOISE_MEASUREMENT
ACS = ismrmrd.ACQ_IS_PARALLEL_CALIBRATION
ACS_AND_IMAGE = ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING


def read(path, **options):
    with open_scan(path, options) as scan:
        return scan.read(0), scan


@pytest.mark.parametrize("shape", [(8, 10), (7, 9)])
def test_a_plane_is_readout_by_phase_encode(tmp_path, shape):
    kspace = plane(3, shape)
    path = write_mrd(tmp_path / "a.mrd", space_2d(*shape), lines_of(kspace))
    got, scan = read(path)
    assert torch.equal(got, kspace)
    assert scan.shape == (1, 3, *shape)
    assert scan.geometry == ((2.0, 3.0), 1, 5.0)
    assert scan.sampled().all()
    assert not scan.notes
    assert scan.calibration is None
    assert scan.noise() is None
    assert not scan.simulated


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("shape", [(8, 10), (7, 9), (6, 5)])
def test_readout_oversampling_is_removed(tmp_path, shape, factor):
    kspace = plane(2, shape)
    space = space_2d(*shape, oversampling=factor)
    got, scan = read(write_mrd(tmp_path / "a.h5", space, lines_of(oversampled(kspace, factor))))
    assert got.shape == kspace.shape
    assert relative_error(got, kspace) < 1e-5
    assert scan.geometry == ((2.0, 3.0), 1, 5.0)
    assert scan.notes == (f"readout oversampling removed: {factor * shape[0]} to {shape[0]}",)


def test_an_interpolated_image_is_not_taken_for_a_smaller_field_of_view(tmp_path):
    space = space_2d(8, 6, recon=(4, 12, 1))
    kspace = plane(1, (8, 6))
    assert torch.equal(read(write_mrd(tmp_path / "a.h5", space, lines_of(kspace)))[0], kspace)


@pytest.mark.parametrize("matrix", [10, 9])
def test_partial_fourier_lines_lie_around_the_centre_of_the_limits(tmp_path, matrix):
    kspace = plane(2, (8, matrix))
    kept = 6  # the last ones; the scanner counts them from 0
    centre = matrix // 2 - (matrix - kept)
    lines = [Line(kspace[..., matrix - kept + step].numpy(), (step, 0)) for step in range(kept)]
    got, scan = read(write_mrd(tmp_path / "a.h5", space_2d(8, matrix, centre=(centre, 0)), lines))
    assert torch.equal(got[..., -kept:], kspace[..., -kept:])
    assert not got[..., :-kept].any()
    assert scan.sampled().any(0).tolist() == [False] * (matrix - kept) + [True] * kept
    assert any("partial Fourier: phase encoding steps 0 to 5" in note for note in scan.notes)


@pytest.mark.parametrize("factor", [1, 2])
def test_a_partial_echo_is_zero_where_nothing_was_acquired(tmp_path, factor):
    kspace = plane(2, (12, 5))
    wide = oversampled(kspace, factor) if factor > 1 else kspace
    dropped = 4 * factor
    changes = {"center_sample": 12 * factor // 2 - dropped}
    lines = lines_of(wide[:, dropped:], head=changes)
    got, scan = read(write_mrd(tmp_path / "a.h5", space_2d(12, 5, oversampling=factor), lines))
    sampled = scan.sampled()
    assert sampled.all(1).tolist() == [False] * 4 + [True] * 8
    assert not got[:, ~sampled].any()
    assert got[:, sampled].all()
    if factor == 1:
        assert torch.equal(got[:, 4:], kspace[:, 4:])
    assert any("partial echo" in note for note in scan.notes)


def test_discarded_samples_are_left_out(tmp_path):
    kspace = plane(2, (8, 5))
    padded = torch.cat([complex_normal((2, 3, 5)), kspace, complex_normal((2, 2, 5))], 1)
    lines = lines_of(padded, head={"discard_pre": 3, "discard_post": 2, "center_sample": 7})
    assert torch.equal(read(write_mrd(tmp_path / "a.h5", space_2d(8, 5), lines))[0], kspace)


def test_undersampled_with_acs_flags(tmp_path):
    kspace = plane(2, (6, 24))
    lines = []
    for step in range(24):
        inside = 8 <= step < 16
        flags = ((ACS_AND_IMAGE,) if step % 2 == 0 else (ACS,)) if inside else ()
        if step % 2 == 0 or inside:
            lines.append(Line(kspace[..., step].numpy(), (step, 0), flags))
    got, scan = read(write_mrd(tmp_path / "a.h5", space_2d(6, 24, acceleration=2), lines))
    acquired = scan.sampled().any(0)
    assert torch.equal(got, kspace * acquired)
    assert acquired.nonzero().flatten().tolist() == sorted({*range(0, 24, 2), *range(8, 16)})
    assert scan.calibration.any(0).nonzero().flatten().tolist() == list(range(8, 16))
    assert any("4 lines come from acquisitions that only calibrate" in n for n in scan.notes)


def test_an_image_is_not_mixed_with_lines_that_only_calibrate(tmp_path):
    kspace = plane(2, (6, 9))
    other = lines_of(7 * kspace, [3, 4, 5], flags=(ACS,))
    got, scan = read(write_mrd(tmp_path / "a.h5", space_2d(6, 9), [*other, *lines_of(kspace)]))
    assert torch.equal(got, kspace)
    assert scan.calibration is None


def test_noise_is_kept_apart_and_scaled_by_its_dwell_time(tmp_path):
    kspace, noise = plane(3, (6, 5)), complex_normal((3, 40), 5)
    lines = [Line(noise.numpy(), flags=(NOISE,), head={"sample_time_us": 20.0}), *lines_of(kspace)]
    path = write_mrd(tmp_path / "a.h5", space_2d(6, 5), lines)
    with open_scan(path) as scan:
        assert torch.equal(scan.read(0), kspace)
        assert torch.allclose(scan.noise(), 2 * noise)


def test_noise_of_other_coils_is_told_and_left_out(tmp_path):
    noise = Line(complex_normal((2, 40), 5).numpy(), flags=(NOISE,))
    path = write_mrd(tmp_path / "a.h5", space_2d(6, 5), [noise, *lines_of(plane(3, (6, 5)))])
    with open_scan(path) as scan:
        assert scan.noise() is None
        assert scan.notes == ("1 noise scans are not used: they have other coils",)


def test_phase_oversampling_stays_in_kspace_and_is_cropped_from_images(tmp_path):
    kspace = plane(2, (6, 10))
    space = space_2d(6, 10, recon=(6, 5, 1), recon_fov=(12.0, 15.0, 5.0))
    path = write_mrd(tmp_path / "a.mrd", space, lines_of(kspace))
    expected = root_sum_of_squares(kspace_to_image(kspace))[:, 3:8]  # 10 // 2 becomes 5 // 2
    for source in (path, tmp_path / "b.h5"):
        with open_scan(source) as scan:
            assert (scan.plane, scan.image_matrix) == ((6, 10), (6, 5))
            assert [note for note in scan.notes if "images" in note] == [
                "images show the middle 6 x 5 of 6 x 10: the rest is oversampling"
            ]
            torch.testing.assert_close(scan.read(0), kspace)
            write_scan(tmp_path / "b.nii", scan, lambda *counts: None)
            if source == path:
                write_scan(tmp_path / "b.h5", scan, lambda *counts: None)
        image = nibabel.load(tmp_path / "b.nii").get_fdata()[..., 0]
        np.testing.assert_allclose(image, expected, rtol=1e-5)
    with h5py.File(tmp_path / "b.h5") as file:
        np.testing.assert_allclose(file["reconstruction_rss"][0], expected, rtol=1e-5)


def test_oversampled_slabs_show_the_middle_partitions(tmp_path):
    kspace = complex_normal((2, 4, 6, 8))
    space = Space((4, 6, 8), (4, 6, 5), (8.0, 18.0, 40.0), (8.0, 18.0, 25.0))
    lines = [Line(kspace[:, :, i, j].numpy(), step=(i, j)) for i in range(6) for j in range(8)]
    with open_scan(write_mrd(tmp_path / "a.mrd", space, lines)) as scan:
        assert (scan.plane, scan.image_matrix) == ((6, 8), (6, 5))
        assert scan.coil_images(scan.read(1)).shape == (2, 6, 5)


def test_averages_are_averaged(tmp_path):
    kspace = plane(2, (6, 5))
    lines = [
        *lines_of(kspace * 0.5, counters={"average": 0}),
        *lines_of(kspace * 1.5, counters={"average": 1}),
        *lines_of(kspace, [2], counters={"average": 2}),
    ]
    got, scan = read(write_mrd(tmp_path / "a.h5", space_2d(6, 5), lines))
    assert relative_error(got, kspace) < 1e-6
    assert scan.notes == ("up to 3 acquisitions of a line are averaged",)


@pytest.mark.parametrize("counter", ["repetition", "contrast", "phase", "set"])
def test_the_first_of_several_images_is_read_unless_another_is_chosen(tmp_path, counter):
    images = [plane(2, (6, 5), seed) for seed in range(3)]
    lines = [
        line for i, image in enumerate(images) for line in lines_of(image, counters={counter: i})
    ]
    path = write_mrd(tmp_path / "a.h5", space_2d(6, 5), lines)
    got, scan = read(path)
    assert torch.equal(got, images[0])
    assert scan.notes == (f"3 {counter}s: 0 is read ({counter}=N takes another)",)
    assert torch.equal(read(path, **{counter: 2})[0], images[2])
    with pytest.raises(UserError, match=f"no {counter} 3: valid is 0, 1, 2"):
        open_scan(path, {counter: 3})


def test_slices_in_any_order_of_acquisition(tmp_path):
    images = {number: plane(2, (6, 5), number) for number in (3, 1, 2)}
    lines = [
        line for step in range(5) for number, image in images.items()
        for line in lines_of(image, [step], counters={"slice": number})
    ]  # fmt: skip
    with open_scan(write_mrd(tmp_path / "a.h5", space_2d(6, 5), lines)) as scan:
        assert scan.n_slices == 3
        assert torch.equal(scan.read_all(), torch.stack([images[n] for n in (1, 2, 3)]))
        with pytest.raises(UserError, match="slice 3 is out of range: valid is 0 to 2"):
            scan.read(3)


def test_reversed_readouts_are_turned_round(tmp_path):
    kspace = plane(2, (7, 6))
    lines = lines_of(kspace, [0, 2, 4]) + lines_of(
        kspace.flip(1), [1, 3, 5], flags=(ismrmrd.ACQ_IS_REVERSE,)
    )
    assert torch.equal(read(write_mrd(tmp_path / "a.h5", space_2d(7, 6), lines))[0], kspace)


def test_what_is_discarded_of_a_reversed_readout_was_acquired_first(tmp_path):
    kspace, junk = plane(2, (8, 6)), torch.full((2, 3, 6), 9e9 + 0j)
    there = torch.cat([junk, kspace, junk[:, :1]], 1)
    back = torch.cat([junk, kspace.flip(1), junk[:, :1]], 1)
    discard = {"discard_pre": 3, "discard_post": 1}
    lines = lines_of(there, [0, 2, 4], head={**discard, "center_sample": 3 + 4})
    for centre in (1 + 4, 3 + 3):  # counted after it is turned round, and as it was acquired
        head = {**discard, "center_sample": centre}
        reverse = lines_of(back, [1, 3, 5], flags=(ismrmrd.ACQ_IS_REVERSE,), head=head)
        path = write_mrd(tmp_path / f"{centre}.h5", space_2d(8, 6), [*lines, *reverse])
        assert torch.equal(read(path)[0], kspace)


@pytest.mark.parametrize("centre", [3, 4])
def test_a_partial_echo_may_be_reversed(tmp_path, centre):
    kspace = plane(2, (12, 6))
    kspace[:, :4] = 0
    there = lines_of(kspace[:, 4:], [0, 2, 4], head={"center_sample": 2})
    back = lines_of(
        kspace[:, 4:].flip(1), [1, 3, 5], flags=(ismrmrd.ACQ_IS_REVERSE,),
        head={"center_sample": 2 if centre == 3 else 8 - 1 - 2},
    )  # fmt: skip
    assert torch.equal(read(write_mrd(tmp_path / "a.h5", space_2d(12, 6), there + back))[0], kspace)


def test_the_centre_of_a_whole_readout_is_believed(tmp_path):
    kspace, space = plane(2, (12, 6)), space_2d(12, 6)

    def with_centres(*centres):
        lines = [
            line
            for step, centre in enumerate(centres)
            for line in lines_of(kspace, [step], head={"center_sample": centre})
        ]
        return read(write_mrd(tmp_path / "a.h5", space, lines))[0]

    for centres in ([6] * 6, [0] * 6, [6, 0] * 3, [5] * 6, [5, 0] * 3):
        assert torch.equal(with_centres(*centres), kspace)
    with pytest.raises(UserError, match="mixes acquisitions of 5 and 6 as the central sample"):
        with_centres(*[6, 5] * 3)
    with pytest.raises(UserError, match="12 samples around number 3 do not fit the encoded"):
        with_centres(*[3] * 6)


@pytest.mark.parametrize(
    "flag", [ismrmrd.ACQ_IS_NAVIGATION_DATA, ismrmrd.ACQ_IS_PHASECORR_DATA,
             ismrmrd.ACQ_IS_DUMMYSCAN_DATA, ismrmrd.ACQ_IS_HPFEEDBACK_DATA,
             ismrmrd.ACQ_IS_RTFEEDBACK_DATA, ismrmrd.ACQ_IS_SURFACECOILCORRECTIONSCAN_DATA],
)  # fmt: skip
def test_what_is_no_image_is_skipped(tmp_path, flag):
    kspace = plane(2, (6, 5))
    odd = Line(complex_normal((2, 3)).numpy(), (77, 0), (flag,))
    got, scan = read(write_mrd(tmp_path / "a.h5", space_2d(6, 5), [odd, *lines_of(kspace), odd]))
    assert torch.equal(got, kspace)
    assert "2 acquisitions skipped" in scan.notes[0]


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize(("n_slabs", "order"), [(1, 1), (2, -1)])
def test_a_volume_is_read_position_by_position(tmp_path, monkeypatch, factor, n_slabs, order):
    monkeypatch.setattr("kscout.data.formats.scan._BLOCK_BYTES", 3 * 8 * 2 * 5 * 4)
    shape = (7, 5, 4)  # readout, ky, kz; blocks of 3 positions
    slabs = complex_normal((n_slabs, 2, *shape))
    space = Space((7 * factor, 5, 4), shape, (14.0 * factor, 15.0, 20.0), (14.0, 15.0, 20.0))
    lines = []
    for slab in range(n_slabs):
        for ky in range(5):
            for kz in range(4):
                readout = slabs[slab, :, :, ky, kz][..., None]
                wide = oversampled(readout, factor) if factor > 1 else readout
                lines.append(Line(wide[..., 0].numpy(), (ky, kz), counters={"slice": slab}))
    with open_scan(write_mrd(tmp_path / "a.h5", space, lines[::order])) as scan:
        assert scan.shape == (7 * n_slabs, 2, 5, 4)
        expected = readout_to_space(slabs.movedim(2, -1)).movedim(-1, 1).flatten(0, 1)
        assert relative_error(scan.read_all(), expected) < 1e-5
        assert relative_error(scan.read(1), expected[1]) < 1e-5
        assert scan.geometry == ((3.0, 5.0), 0, 2.0)
        assert scan.sampled().all()


def test_several_encodings_are_listed_unless_one_is_chosen(tmp_path):
    first, second = plane(2, (6, 5)), plane(2, (8, 4))
    spaces = [space_2d(6, 5), space_2d(8, 4)]
    lines = lines_of(first) + lines_of(second, head={"encoding_space_ref": 1})
    path = write_mrd(tmp_path / "a.h5", spaces, lines)
    with pytest.raises(UserError, match=r"encoding=N \(0: cartesian 6x5x1 .*; 1: .* 8x4x1"):
        open_scan(path)
    assert torch.equal(read(path, encoding=0)[0], first)
    assert torch.equal(read(path, encoding=1)[0], second)
    with pytest.raises(UserError, match="no acquisitions of encoding 2: valid is 0: "):
        open_scan(path, {"encoding": 2})


def test_elliptical_corners_stay_not_acquired(tmp_path):
    shape = (4, 9, 8)
    volume = complex_normal((1, *shape))
    ky, kz = np.meshgrid(np.arange(9) - 4, np.arange(8) - 4, indexing="ij")
    inside = (ky / 4.5) ** 2 + (kz / 4.5) ** 2 <= 1
    lines = [Line(volume[..., y, z].numpy(), (int(y), int(z))) for y, z in np.argwhere(inside)]
    space = Space(shape, shape, (8.0, 9.0, 8.0), (8.0, 9.0, 8.0))
    got, scan = read(write_mrd(tmp_path / "a.h5", space, lines))
    assert np.array_equal(scan.sampled().numpy(), inside)
    assert not got[:, ~scan.sampled()].any()


def lost_line(lines):
    return [line for line in lines if line.step[0] != 11]


def spoilt(samples, value):
    samples = samples.copy()
    samples[0, 2] = value
    return samples


BAD = {
    "line 11 is missing": (space_2d(6, 20), lost_line),
    "slice 1 lacks line 11, which another slice has .allow_missing=true reads": (
        space_2d(6, 20),
        lambda lines: [Line(x.samples, x.step, counters={"slice": 0}) for x in lines]
        + [Line(x.samples, x.step, counters={"slice": 1}) for x in lost_line(lines)],
    ),
    "mixes acquisitions of 1 and 2 coils": (
        space_2d(6, 20), lambda lines: [*lines[:-1], Line(lines[-1].samples[:1], (19, 0))]
    ),
    "mixes acquisitions of 5 and 6 samples": (
        space_2d(6, 20), lambda lines: [*lines[:-1], Line(lines[-1].samples[:, :5], (19, 0))]
    ),
    "encode steps 20, 0 of an acquisition lie outside": (
        space_2d(6, 20), lambda lines: [*lines, Line(lines[0].samples, (20, 0))]
    ),
    "6 samples around number 3 do not fit the encoded readout of 5": (space_2d(5, 20), list),
    "trajectory is radial: valid is cartesian": (space_2d(6, 20, trajectory="radial"), list),
    "is of encoding 3, and the header has 1": (
        space_2d(6, 20),
        lambda lines: [Line(x.samples, x.step, head={"encoding_space_ref": 3}) for x in lines],
    ),
    "no acquisition of an image among its 20": (
        space_2d(6, 20), lambda lines: [Line(x.samples, x.step, (NOISE,)) for x in lines]
    ),
    "acquisition 4 holds NaN": (
        space_2d(6, 20),
        lambda lines: [*lines[:4], Line(spoilt(lines[4].samples, np.nan), (4, 0)), *lines[5:]],
    ),
    "announces 2x60000x60000 points": (space_2d(60000, 60000), list),
    "matrix of 6x70000x1: valid is 1 to 65535": (space_2d(6, 70000), list),
    "matrix of 6x-20x1": (space_2d(6, -20), list),
}  # fmt: skip


@pytest.mark.parametrize("message", BAD)
def test_bad_files_are_refused_in_one_line(tmp_path, message):
    space, spoil = BAD[message]
    path = write_mrd(tmp_path / "a.h5", space, spoil(lines_of(plane(2, (6, 20)))))
    with pytest.raises(UserError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("acs", [range(0), range(16, 24)])
def test_a_lost_line_of_an_accelerated_scan_is_noticed(tmp_path, acs):
    kspace = plane(2, (6, 40))
    steps = sorted({*range(0, 40, 2), *acs} - {12})
    path = write_mrd(tmp_path / "a.h5", space_2d(6, 40, acceleration=2), lines_of(kspace, steps))
    with pytest.raises(UserError, match=r"line 12 is missing.*allow_missing=true reads"):
        open_scan(path)
    got, scan = read(path, allow_missing=True)
    assert torch.equal(got, kspace * scan.sampled())
    assert scan.sampled().any(0).nonzero().flatten().tolist() == steps


def test_slices_that_lack_lines_are_read_if_asked_to(tmp_path):
    kspace = [plane(2, (6, 20), i) for i in range(2)]
    lines = lines_of(kspace[0], counters={"slice": 0}) + lost_line(
        lines_of(kspace[1], counters={"slice": 1})
    )
    with open_scan(
        write_mrd(tmp_path / "a.h5", space_2d(6, 20), lines), {"allow_missing": True}
    ) as scan:
        assert torch.equal(scan.read(0), kspace[0])
        assert not scan.read(1)[..., 11].any()
        assert scan.points_of_slices == (6 * 19, 6 * 20)
        assert "slices differ: each has 114 to 120 points" in scan.uneven()
        said = "read without what it lacks: slice 1 lacks line 11, which another slice has"
        assert said in scan.notes


def test_lost_calibration_is_lost_like_any_line(tmp_path):
    kspace = [plane(2, (6, 20), i) for i in range(2)]
    lines = []
    for i in range(2):
        lines += lines_of(kspace[i], range(0, 20, 2), counters={"slice": i})
        odd = [9, 11] if i == 0 else [11]
        lines += lines_of(kspace[i], odd, counters={"slice": i}, flags=(ACS,))
    path = write_mrd(tmp_path / "a.mrd", space_2d(6, 20), lines)
    with pytest.raises(UserError, match=r"slice 1 lacks line 9, which another slice has .allow"):
        open_scan(path)
    with open_scan(path, {"allow_missing": True}) as scan:
        assert torch.equal(scan.read(0)[..., [9, 11]], kspace[0][..., [9, 11]])
        assert not scan.read(1)[..., 9].any()


def test_calibration_fills_what_its_own_slice_lost(tmp_path):
    kspace = [plane(2, (6, 20), i) for i in range(2)]
    lines = lines_of(kspace[0], counters={"slice": 0})
    lines += lost_line(lines_of(kspace[1], counters={"slice": 1}))
    lines += lines_of(kspace[1], [11], counters={"slice": 1}, flags=(ACS,))
    path = write_mrd(tmp_path / "a.mrd", space_2d(6, 20), lines)
    with open_scan(path, {"allow_missing": True}) as scan:
        assert torch.equal(scan.read_all(), torch.stack(kspace))


@pytest.mark.parametrize("acceleration", [2, 4, 8])
@pytest.mark.parametrize("kind", [kind for kind in FIXED_MASKS if kind != "file"])
def test_masks_of_every_kind_are_read_back(tmp_path, kind, acceleration):
    shape = (40, 36)
    acs = {"acs": "lines", "acs_size": 4} if "lines" in kind else {"acs": "square", "acs_size": 6}
    mask = FIXED_MASKS[kind](Budget.of(shape, acceleration=acceleration, **acs), 0)
    samples = complex_normal((1, 2)).numpy()
    lines = [Line(samples, (y, z)) for y, z in mask.nonzero().tolist()]
    space = Space((2, *shape), (2, *shape), (4.0, 80.0, 72.0), (4.0, 80.0, 72.0))
    with open_scan(write_mrd(tmp_path / "a.mrd", space, lines)) as scan:
        assert torch.equal(scan.sampled(), mask)


@pytest.mark.parametrize("mode", ["separate", "external"])
def test_a_separate_calibration_is_kept_apart(tmp_path, mode):
    image, other = plane(2, (12, 24)), plane(2, (12, 24), 5)
    lines = lines_of(image, range(0, 24, 2)) + lines_of(7 * other, range(8, 17), flags=(ACS,))
    space = space_2d(12, 24, acceleration=2, calibration=mode)
    got, scan = read(write_mrd(tmp_path / "a.mrd", space, lines))
    even = torch.arange(24) % 2 == 0
    assert torch.equal(got, image * even)
    assert "calibration: a separate scan of 9 lines, in the ISMRMRD file alone" in scan.notes
    where = (torch.arange(24) >= 8) & (torch.arange(24) < 17)
    assert torch.equal(scan.reference.sampled(), where.expand(12, -1))
    with open_scan(tmp_path / "a.mrd") as again:
        assert torch.equal(again.reference.read(0), 7 * other * where)
    lines = [*lines, *lines_of(image, range(0, 24, 2), counters={"slice": 1})]
    got, scan = read(write_mrd(tmp_path / "b.mrd", space, lines))
    assert torch.equal(got, image * even)
    assert scan.reference is None
    said = "its separate calibration is not used: it has other slices or coils"
    assert said in scan.notes
    lost = [line for line in lines_of(7 * other, range(24), flags=(ACS,)) if line.step[0] != 12]
    space.acceleration = 1
    got, scan = read(write_mrd(tmp_path / "c.mrd", space, [*lines_of(image), *lost]))
    assert torch.equal(got, image)
    said = "its separate calibration is not used: line 12 is missing: its neighbours"
    assert any(note.startswith(said) for note in scan.notes)


@pytest.mark.parametrize("mode", ["embedded", "interleaved", "other", None])
def test_other_calibration_is_part_of_the_image(tmp_path, mode):
    kspace = plane(2, (12, 24))
    lines = lines_of(kspace, range(0, 24, 2)) + lines_of(kspace, [9, 11, 13], flags=(ACS,))
    space = space_2d(12, 24, acceleration=2, calibration=mode)
    got, scan = read(write_mrd(tmp_path / "a.mrd", space, lines))
    assert scan.reference is None
    assert torch.equal(got, kspace * scan.sampled())
    assert scan.sampled().any(0).sum() == 15


def test_calibration_of_another_encoding_is_told(tmp_path):
    kspace = plane(2, (6, 12))
    other = lines_of(kspace, [5, 6], flags=(ACS,), head={"encoding_space_ref": 1})
    path = write_mrd(tmp_path / "a.mrd", [space_2d(6, 12)] * 2, [*other, *lines_of(kspace)])
    with open_scan(path) as scan:
        assert "2 calibration lines are not used: they are of encoding 1" in scan.notes


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        (b"<ismrmrdHeader", "ISMRMRD header cannot be read"),
        (b"<a/>", "ISMRMRD header"),
        (b"", "ISMRMRD header"),
        (b"\xff\xfe", "ISMRMRD header"),
    ],
)
def test_a_damaged_header_is_refused(tmp_path, xml, message):
    path = write_mrd(tmp_path / "a.h5", space_2d(6, 5), lines_of(plane(1, (6, 5))))
    with ismrmrd.Dataset(str(path), mode="r+") as dataset:
        dataset.write_xml_header(xml)
    with pytest.raises(UserError, match=message):
        open_scan(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repetitions": 1}, "ISMRMRD raw data has no option repetitions: valid is encoding, "),
        ({"repetition": -1}, "repetition=-1: input should be greater"),
        ({"repetition": "x"}, "repetition=x: input should be a valid integer"),
    ],
)
def test_options_are_checked(tmp_path, options, message):
    path = write_mrd(tmp_path / "a.h5", space_2d(6, 5), lines_of(plane(1, (6, 5))))
    with pytest.raises(UserError, match=message):
        open_scan(path, options)


def test_readout_transforms_are_inverse_and_unitary():
    x = complex_normal((3, 7))
    assert relative_error(space_to_readout(readout_to_space(x)), x) < 1e-6
    assert float(readout_to_space(x).norm()) == pytest.approx(float(x.norm()), rel=1e-6)


def test_compressed_acquisitions_are_refused_with_a_way_out(tmp_path):
    path = write_mrd(tmp_path / "a.h5", space_2d(6, 5), lines_of(plane(1, (6, 5))))
    with h5py.File(path, "a") as file:
        data = file["dataset/data"][()]
        del file["dataset/data"]
        file["dataset"].create_dataset("data", data=data, compression="gzip")
    with pytest.raises(UserError, match="is compressed: h5repack -f NONE undoes it"):
        open_scan(path)


@pytest.mark.parametrize("chunks", [None, (4,), (100,)])
def test_acquisitions_are_found_however_they_are_laid_out(tmp_path, chunks):
    kspace = plane(2, (6, 9))
    path = write_mrd(tmp_path / "a.h5", space_2d(6, 9), lines_of(kspace))
    with h5py.File(path, "a") as file:
        data = file["dataset/data"][()]
        del file["dataset/data"]
        maxshape = None if chunks is None else (None,)
        file["dataset"].create_dataset("data", data=data, chunks=chunks, maxshape=maxshape)
    assert torch.equal(read(path)[0], kspace)
