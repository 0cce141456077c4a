"""Where ISMRMRD slices lie in the patient, and that NIfTI says the same."""

import nibabel
import numpy as np
import pytest
import torch

from kscout.data.formats import open_scan
from kscout.data.writers import write_scan
from mrd_files import Line, Space, lines_of, plane, space_2d, write_mrd

LEFT, BACK, UP = np.eye(3)
OBLIQUE = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
if np.linalg.det(OBLIQUE) < 0:
    OBLIQUE[:, 2] *= -1


def ignore(done, total):
    """No progress is shown."""


def write(path, read, phase, through, positions, **changes_of_space):
    """Slices of 8 x 6 voxels of 2 x 3 mm, 5 mm thick."""
    lines = []
    for number, position in enumerate(positions):
        directions = {"read_dir": read, "phase_dir": phase, "slice_dir": through}
        head = {name: tuple(map(float, v)) for name, v in directions.items()}
        head["position"] = tuple(map(float, position))
        changes = {"head": head, "counters": {"slice": number}}
        lines += lines_of(plane(2, (8, 6), number), **changes)
    return write_mrd(path, space_2d(8, 6, **changes_of_space), lines)


def in_patient(affine, voxel):
    """Left, back and up in mm of a voxel."""
    return (affine @ [*voxel, 1])[:3] * [-1, -1, 1]


@pytest.mark.parametrize("axes", [(LEFT, BACK, UP), (BACK, -LEFT, UP), tuple(OBLIQUE.T)])
@pytest.mark.parametrize("n", [1, 3, 4])
def test_every_voxel_lies_where_the_scanner_says(tmp_path, axes, n):
    read, phase, through = axes
    first = np.array([10.0, -20.0, 30.0])
    positions = [first + 7.0 * i * through for i in range(n)]
    with open_scan(write(tmp_path / "a.mrd", read, phase, through, positions)) as scan:
        write_scan(tmp_path / "a.nii", scan, ignore)
        write_scan(tmp_path / "a.h5", scan, ignore)
    affine = nibabel.load(tmp_path / "a.nii").affine
    for i in range(n):
        middle = in_patient(affine, (4, 3, i))
        np.testing.assert_allclose(middle, positions[i], atol=1e-3)
        np.testing.assert_allclose(in_patient(affine, (5, 3, i)) - middle, 2 * read, atol=1e-3)
        np.testing.assert_allclose(in_patient(affine, (4, 4, i)) - middle, 3 * phase, atol=1e-3)
    with open_scan(tmp_path / "a.h5") as again:
        assert again.geometry.slice_thickness == pytest.approx(5.0 if n == 1 else 7.0)
        write_scan(tmp_path / "b.nii", again, ignore)
    np.testing.assert_allclose(nibabel.load(tmp_path / "b.nii").affine, affine)


@pytest.mark.parametrize("n_shown", [2, 3, 5])
def test_cropped_images_lie_where_the_scanner_says(tmp_path, n_shown):
    recon = {"recon": (8, n_shown, 1), "recon_fov": (16.0, 3.0 * n_shown, 5.0)}
    positions = [np.array([10.0, -20.0, 30.0])]
    with open_scan(write(tmp_path / "a.mrd", LEFT, BACK, UP, positions, **recon)) as scan:
        write_scan(tmp_path / "a.nii", scan, ignore)
    image = nibabel.load(tmp_path / "a.nii")
    assert image.shape == (8, n_shown, 1)
    middle = in_patient(image.affine, (4, n_shown // 2, 0))
    np.testing.assert_allclose(middle, positions[0], atol=1e-3)


def test_interleaved_slices_are_sorted_by_where_they_lie(tmp_path):
    positions = [along * UP for along in (0.0, 10.0, 5.0, 15.0)]
    with open_scan(write(tmp_path / "a.mrd", LEFT, BACK, UP, positions)) as scan:
        assert scan.notes[-1].startswith("slices are sorted by where they lie")
        found = scan.read_all()
        affine = scan.affine
    for i, number in enumerate((0, 2, 1, 3)):
        assert torch.equal(found[i], plane(2, (8, 6), number))
        np.testing.assert_allclose(in_patient(affine, (4, 3, i)), positions[number], atol=1e-3)


def test_a_volume_lies_where_the_scanner_says(tmp_path):
    shape, middle = (6, 5, 4), np.array([3.0, -4.0, 5.0])
    space = Space(shape, shape, (12.0, 15.0, 20.0), (12.0, 15.0, 20.0))
    read, phase, through = OBLIQUE.T
    head = {"read_dir": tuple(read), "phase_dir": tuple(phase), "slice_dir": tuple(through)}
    head["position"] = tuple(middle)
    readout = np.ones((2, 6), np.complex64)
    lines = [Line(readout, (ky, kz), head=head) for ky in range(5) for kz in range(4)]
    with open_scan(write_mrd(tmp_path / "a.mrd", space, lines)) as scan:
        affine = scan.affine
    centre = (2, 2, 3)  # of (phase, second phase, readout)
    np.testing.assert_allclose(in_patient(affine, centre), middle, atol=1e-3)
    for axis, step in enumerate((3 * phase, 5 * through, 2 * read)):
        moved = np.array(centre)
        moved[axis] += 1
        np.testing.assert_allclose(in_patient(affine, moved) - middle, step, atol=1e-3)


@pytest.mark.parametrize("orientation", ["RAS", "LPI", "ASR", "SLA", "PIL"])
def test_magnitudes_come_back_to_where_they_were(tmp_path, orientation):
    voxels = np.zeros((7, 6, 5), np.float32)
    voxels[1, 4, 2], voxels[5, 2, 3] = 2, 1
    ornt = nibabel.orientations.axcodes2ornt(orientation)
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    affine[:3, 3] = (-5, 6, 7)
    moved = nibabel.Nifti1Image(voxels, affine).as_reoriented(ornt)
    nibabel.save(moved, tmp_path / "a.nii")
    with open_scan(tmp_path / "a.nii", {"phase": 0.0}) as scan:
        write_scan(tmp_path / "b.nii", scan, ignore)
    again = nibabel.load(tmp_path / "b.nii")
    for value in (2, 1):
        places = []
        for image in (moved, again):
            data = image.get_fdata()
            nearest = np.unravel_index(abs(data - value).argmin(), data.shape)
            places.append(image.affine @ [*nearest, 1])
        np.testing.assert_allclose(*places, atol=1e-4)


@pytest.mark.parametrize(
    ("axes", "turns"),
    [
        ((BACK, LEFT, -UP), 0),  # axial, the readout down the page
        ((-BACK, LEFT, UP), 2),
        ((LEFT, BACK, UP), 3),  # the phase encoding is down the page after a turn clockwise
        ((LEFT, -BACK, -UP), 1),
        ((-UP, LEFT, BACK), 0),  # coronal
        ((BACK, -UP, LEFT), 3),  # sagittal
    ],
)
def test_pictures_stand_upright(tmp_path, axes, turns):
    with open_scan(write(tmp_path / "a.mrd", *axes, [np.zeros(3)])) as scan:
        assert scan.geometry.quarter_turns == turns
    rows, columns = np.indices((8, 6))
    places = rows[..., None] * axes[0] + columns[..., None] * axes[1]
    wanted = BACK if abs(axes[2] @ UP) == 1 else -UP
    assert (np.diff(np.rot90(places, turns) @ wanted, axis=0) > 0).all()


@pytest.mark.parametrize(
    ("axes", "positions"),
    [
        ((0 * LEFT, 0 * BACK, 0 * UP), np.zeros((2, 3))),
        ((LEFT, LEFT, UP), np.zeros((1, 3))),
        ((LEFT, BACK, UP), np.zeros((2, 3))),
        ((LEFT, BACK, UP), np.array([[0, 0, 0], [30, 0, 0]])),
        ((LEFT, BACK, UP), np.array([[0, 0, 0], [0, 0, 5], [0, 0, 20]])),
        ((LEFT, BACK, np.nan * UP), np.zeros((1, 3))),
        ((LEFT, BACK, UP), np.full((1, 3), np.inf)),
    ],
)
def test_places_that_make_no_sense_are_not_claimed(tmp_path, axes, positions):
    with open_scan(write(tmp_path / "a.mrd", *axes, positions)) as scan:
        assert scan.affine is None
        assert scan.geometry.quarter_turns == 1
        assert any("cannot be told" in note for note in scan.notes) == bool(axes[2].any())


def test_slices_that_are_not_parallel_have_no_common_place(tmp_path):
    lines = []
    for number, axes in enumerate([(LEFT, BACK, UP), (BACK, UP, LEFT)]):
        names = ("read_dir", "phase_dir", "slice_dir")
        head = {name: tuple(map(float, axis)) for name, axis in zip(names, axes, strict=True)}
        head["position"] = (0.0, 0.0, 10.0 * number)
        changes = {"head": head, "counters": {"slice": number}}
        lines += lines_of(plane(2, (8, 6), number), **changes)
    with open_scan(write_mrd(tmp_path / "a.mrd", space_2d(8, 6), lines)) as scan:
        assert scan.affine is None
