"""Pictures of files: what is drawn is what the file holds, upright and in its proportions."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest
import torch
from torch import Tensor

from kscout.data.formats import Scan, open_scan
from kscout.data.slices import Geometry
from kscout.data.writers import write_hdf5, write_nifti
from kscout.errors import UserError
from kscout.physics.coils import root_sum_of_squares
from kscout.physics.fourier import image_to_kspace, kspace_to_image
from kscout.report import canvas, files
from kscout.report.files import show_file, show_masks, show_scan

SHAPE = (13, 18)


@pytest.fixture(autouse=True)
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that were saved, the latest last; in few dots, which is faster."""
    monkeypatch.setattr(canvas, "RESOLUTION", 30)
    figures: list[Any] = []

    def save(figure: Any, path: Path) -> None:
        canvas.save(figure, path)
        figures.append(figure)

    monkeypatch.setattr(files, "save", save)
    return figures


def pictures(figure: Any) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for axes in figure.axes for image in axes.get_images()]


def greys(figure: Any) -> list[tuple[float, float]]:
    return [image.get_clim() for axes in figure.axes for image in axes.get_images()]


def texts(figure: Any) -> str:
    return "\n".join(text.get_text() for text in figure.texts)


def proportions(figure: Any, number: int = 0) -> float:
    box = figure.axes[number].get_position()
    return box.height * figure.get_figheight() / (box.width * figure.get_figwidth())


def is_laid_out(figure: Any) -> bool:
    """Everything lies on the page, and no picture on another."""
    boxes = [axes.get_position() for axes in figure.axes]
    on_page = all(b.x0 >= 0 and b.y0 >= 0 and b.x1 <= 1 and b.y1 <= 1 for b in boxes)
    return on_page and not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def scan(n_slices: int = 3, n_coils: int = 2, shape: tuple[int, int] = SHAPE) -> torch.Tensor:
    """Fully sampled k-space of an object without any symmetry."""
    generator = torch.Generator().manual_seed(n_slices)
    size = (n_slices, n_coils, *shape)
    image = torch.rand(size, generator=generator) * torch.linspace(0.1, 1, shape[1]) ** 2
    return image_to_kspace(image.to(torch.complex64))


def mask(shape: tuple[int, int], n: int) -> np.ndarray:
    flat = np.zeros(shape[0] * shape[1], dtype=bool)
    flat[np.random.default_rng(n).permutation(flat.size)[:n]] = True
    return flat.reshape(shape)


def test_masks_are_drawn_as_they_are_with_their_counts(tmp_path: Path, drawn: list[Any]) -> None:
    given = {"some.npy": mask(SHAPE, 60), "all.npy": np.ones((7, 9)), "$one$.npy": mask(SHAPE, 1)}
    for name, pattern in given.items():
        np.save(tmp_path / name, pattern)
    out = show_masks([tmp_path / name for name in given], tmp_path / "masks.png")
    assert out.stat().st_size > 0
    for shown, pattern in zip(pictures(drawn[0]), given.values(), strict=True):
        assert np.array_equal(shown, pattern.astype(bool))
    assert set(greys(drawn[0])) == {(0, 1)}  # a full mask is white
    assert "some.npy\n60 of 234 points, R=3.90" in texts(drawn[0])
    assert "all.npy\n63 of 63 points, R=1.00" in texts(drawn[0])
    assert is_laid_out(drawn[0])


def test_large_masks_have_a_close_up_of_their_centre(tmp_path: Path, drawn: list[Any]) -> None:
    pattern = mask((101, 144), 3000)
    np.save(tmp_path / "m.npy", pattern)
    show_masks([tmp_path / "m.npy"] * 5, tmp_path / "masks.svg")
    assert len(pictures(drawn[0])) == 10
    close_up = pictures(drawn[0])[1]
    assert np.array_equal(close_up, pattern[50 - 12 : 50 + 12, 72 - 24 : 72 + 24])
    assert is_laid_out(drawn[0])


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("seed", range(3))
def test_pictures_say_which_side_is_which(
    tmp_path: Path, drawn: list[Any], turns: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    axes = np.eye(3)[rng.permutation(3)] * rng.choice([-2.0, 2.0], 3)
    affine = np.eye(4)
    affine[:3, :3] = axes + 0.2 * rng.normal(size=(3, 3))
    write_hdf5(tmp_path / "a.h5", scan(shape=(6, 8)), Geometry(quarter_turns=turns))
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file.attrs["affine"] = affine
    rows, columns = np.indices((6, 8))
    places = np.rot90(rows[..., None] * affine[:3, 0] + columns[..., None] * affine[:3, 1], turns)
    sides = []
    for way in (places[0, 0] - places[0, 1], places[0, 0] - places[1, 0]):
        axis = int(np.abs(way).argmax())
        sides.append(("LR", "PA", "IS")[axis][int(way[axis] > 0)])
    show_file(tmp_path / "a.h5", tmp_path / "a.png", None)
    with open_scan(tmp_path / "a.h5") as opened:
        show_scan(opened, tmp_path / "b.png")
    for figure in drawn:
        assert f": left is {sides[0]}, top is {sides[1]}" in " ".join(texts(figure).split())


NO_MASK: dict[str, Callable[[Path], object]] = {
    "does not exist": lambda path: path.unlink(missing_ok=True),
    "cannot read mask file": lambda path: path.write_bytes(b"\x89HDF\r\n"),
    "objects": lambda path: np.save(path, np.array([[{}]])),
    r"has shape \(3, 13, 18\): valid is \(ky, kx\)": lambda p: np.save(p, np.ones((3, *SHAPE))),
    "not binary": lambda path: np.save(path, np.ones(SHAPE, np.complex64)),
    "acquires no point": lambda path: np.save(path, np.zeros(SHAPE)),
    "no point": lambda path: np.save(path, np.zeros((0, 4))),
}


@pytest.mark.parametrize("message", NO_MASK)
def test_what_is_no_mask_is_refused_in_one_line(tmp_path: Path, message: str) -> None:
    NO_MASK[message](tmp_path / "m.npy")
    with pytest.raises(UserError, match=message) as caught:
        show_masks([tmp_path / "m.npy"], tmp_path / "masks.png")
    assert "m.npy" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "unsafe" not in str(caught.value)
    assert not (tmp_path / "masks.png").exists()


def test_fully_sampled_kspace(tmp_path: Path, drawn: list[Any]) -> None:
    kspace = scan()
    np.save(tmp_path / "scan.npy", kspace.numpy())
    show_file(tmp_path / "scan.npy", tmp_path / "scan.png", None)
    image, plane, *coils = pictures(drawn[0])
    expected = kspace_to_image(kspace[1])  # the middle slice
    assert np.allclose(image, root_sum_of_squares(expected), atol=1e-5)
    assert np.allclose(coils, expected.abs(), atol=1e-5)
    brightest = np.unravel_index(plane.argmax(), SHAPE)
    assert brightest == (SHAPE[0] // 2, SHAPE[1] // 2)
    assert 0 <= plane.min() <= plane.max() == pytest.approx(1)
    grey = greys(drawn[0])
    assert grey[0] == pytest.approx((0, np.percentile(image, 99.9)))
    assert grey[2] == grey[3]
    assert "scan.npy" in texts(drawn[0])
    assert "13 x 18 (ky, kx), 2 coils, slice 1 (of 0 to 2)\nfully sampled" in texts(drawn[0])
    assert is_laid_out(drawn[0])


@pytest.mark.parametrize("shape", [SHAPE, (40, 11), (11, 290), (310, 300)])
def test_undersampled_kspace_shows_what_was_acquired(
    tmp_path: Path, drawn: list[Any], shape: tuple[int, int]
) -> None:
    acquired = mask(shape, 100)
    np.save(tmp_path / "scan.npy", (scan(1, 3, shape) * torch.from_numpy(acquired)).numpy())
    show_file(tmp_path / "scan.npy", tmp_path / "scan.png", None)
    shown = pictures(drawn[0])
    assert np.array_equal(shown[2], acquired)
    assert (shown[1][~acquired] == 0).all()
    n = shape[0] * shape[1]
    assert f"1 slice\nundersampled: 100 of {n} points, R={n / 100:.2f}" in texts(drawn[0])
    assert "zero-filled" in texts(drawn[0]).replace("\n", " ")
    assert is_laid_out(drawn[0])


def test_one_coil_is_not_drawn_twice(tmp_path: Path, drawn: list[Any]) -> None:
    np.save(tmp_path / "scan.npy", scan(1, 1)[0, 0].numpy())
    show_file(tmp_path / "scan.npy", tmp_path / "scan.pdf", 0)
    assert len(pictures(drawn[0])) == 2
    assert "1 coil, 1 slice" in texts(drawn[0])


def test_more_coils_than_can_be_looked_at(tmp_path: Path, drawn: list[Any]) -> None:
    np.save(tmp_path / "scan.npy", scan(1, 40).numpy())
    show_file(tmp_path / "scan.npy", tmp_path / "scan.png", None)
    assert len(pictures(drawn[0])) == 2 + files.MOST_COILS
    assert "the first 32 coils are drawn" in texts(drawn[0])
    assert is_laid_out(drawn[0])


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_hdf5_and_nifti_of_a_scan_look_the_same(
    tmp_path: Path, drawn: list[Any], turns: int
) -> None:
    kspace = scan()
    coils = kspace_to_image(kspace)
    geometry = Geometry((2.0, 1.0), turns, 5.0)
    write_hdf5(tmp_path / "scan.h5", kspace, geometry)
    write_nifti(tmp_path / "coils.nii.gz", coils, geometry)
    write_nifti(tmp_path / "rss.nii", root_sum_of_squares(coils), geometry)
    for name in ("scan.h5", "coils.nii.gz", "rss.nii"):
        show_file(tmp_path / name, tmp_path / "scan.png", 2)
    expected = np.rot90(root_sum_of_squares(coils[2]).numpy(), turns)
    ratio = 18 / 26 if turns % 2 else 26 / 18
    for figure in drawn:
        assert np.allclose(pictures(figure)[0], expected, atol=1e-5)
        assert proportions(figure) == pytest.approx(ratio)
        assert is_laid_out(figure)
    one_coil = pictures(drawn[0])[-1]
    assert np.allclose(pictures(drawn[1])[-1], one_coil, atol=1e-5)
    assert proportions(drawn[1], -1) == pytest.approx(ratio)
    assert len(pictures(drawn[2])) == 1
    assert "NIfTI, picture" in texts(drawn[2])


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "SAL", "ILA"])
def test_nifti_of_any_orientation_is_drawn_upright(
    tmp_path: Path, drawn: list[Any], axes: str
) -> None:
    voxels = np.random.default_rng(1).integers(0, 900, (5, 7, 4)).astype(np.int16)
    volume = nibabel.Nifti1Image(voxels, np.diag([1, 2, 3, 1]))
    orientation = nibabel.orientations.axcodes2ornt(axes)
    nibabel.save(volume.as_reoriented(nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), orientation)), tmp_path / "v.nii")  # fmt: skip
    show_file(tmp_path / "v.nii", tmp_path / "v.png", 1)
    (image,) = pictures(drawn[0])
    assert np.array_equal(image, voxels[:, ::-1, 1].T)  # right to the right, anterior up
    assert proportions(drawn[0]) == pytest.approx(7 * 2 / (5 * 1))


@pytest.mark.parametrize("name", ["scan.npy", "scan.nii"])
@pytest.mark.parametrize("index", [-1, 3])
def test_a_slice_that_is_not_there(tmp_path: Path, name: str, index: int) -> None:
    kspace = scan()
    np.save(tmp_path / "scan.npy", kspace.numpy())
    write_nifti(tmp_path / "scan.nii", kspace.abs()[:, 0])
    with pytest.raises(UserError, match=f"{name}: slice {index} is out of range: valid is 0 to 2"):
        show_file(tmp_path / name, tmp_path / "out.png", index)
    assert not (tmp_path / "out.png").exists()


def save_nifti(path: Path, voxels: np.ndarray) -> None:
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)


def cut(path: Path, n: int) -> None:
    path.write_bytes(path.read_bytes()[:-n])


NOISE = np.random.default_rng(0).random((9, 8, 7)).astype(np.float32)
RGB = np.zeros((3, 4, 5), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
BAD_NIFTI: dict[str, tuple[str, Callable[[Path], object]]] = {
    "missing": ("no such file", lambda p: p.unlink()),
    "folder": ("not a file", lambda p: (p.unlink(), p.mkdir())),
    "foreign": ("not a readable NIfTI", lambda p: p.write_bytes(b"\x93NUMPY" * 99)),
    "empty": ("not a readable NIfTI", lambda p: p.write_bytes(b"")),
    "header": ("not a readable NIfTI", lambda p: p.write_bytes(p.read_bytes()[:300])),
    "truncated": ("truncated", lambda p: cut(p, 1)),
    "rank": (r"shape is \(9, 8\): valid is", lambda p: save_nifti(p, NOISE[..., 0])),
    "colour": ("dtype", lambda p: save_nifti(p, RGB)),
    "nan": ("slice 3 holds NaN", lambda p: save_nifti(p, np.where(NOISE > 0.5, np.nan, NOISE))),
}  # fmt: skip


def refused(path: Path, message: str) -> None:
    out = path.with_name("out.png")
    with pytest.raises(UserError, match=message) as caught:
        show_file(path, out, None)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not out.exists()


@pytest.mark.parametrize("fault", BAD_NIFTI)
def test_bad_nifti_is_refused_in_one_line(tmp_path: Path, fault: str) -> None:
    message, spoil = BAD_NIFTI[fault]
    save_nifti(tmp_path / "v.nii", NOISE)
    spoil(tmp_path / "v.nii")
    refused(tmp_path / "v.nii", message)


@pytest.mark.parametrize("n", [20, 300, 900])
def test_truncated_gzip_is_refused_wherever_it_ends(tmp_path: Path, n: int) -> None:
    save_nifti(tmp_path / "v.nii.gz", NOISE)
    cut(tmp_path / "v.nii.gz", n)
    refused(tmp_path / "v.nii.gz", "v.nii.gz")


def test_mutated_nifti_gives_a_picture_or_a_user_error(tmp_path: Path) -> None:
    path = tmp_path / "v.nii"
    save_nifti(path, NOISE[:4, :3, :2])
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        broken = bytearray(whole)
        for place in rng.integers(352, size=rng.integers(1, 4)):
            broken[place] = rng.integers(256)
        path.write_bytes(broken)
        with suppress(UserError):
            show_file(path, tmp_path / "v.svg", None)


def test_unknown_files_and_bad_kspace_are_refused(tmp_path: Path) -> None:
    (tmp_path / "scan.dcm").write_bytes(b"DICM")
    refused(tmp_path / "scan.dcm", r"unknown format: valid are .*\.npy, .*\.nii\.gz")
    np.save(tmp_path / "real.npy", np.ones(SHAPE))
    refused(tmp_path / "real.npy", "complex")


@pytest.mark.parametrize("name", ["picture", "picture.jpg", "picture.npy"])
def test_an_unknown_picture_format_is_refused_first(tmp_path: Path, name: str) -> None:
    for draw in (
        lambda out: show_masks([tmp_path / "absent.npy"], out),
        lambda out: show_file(tmp_path / "absent.npy", out, None),
        lambda out: show_scan(Given("title", torch.ones(1, 2, 3), Geometry()), out),
    ):
        with pytest.raises(UserError, match=rf"{name}: .*valid are \.png, \.pdf, \.svg"):
            draw(tmp_path / name)


def test_an_unwritable_picture_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    np.save(tmp_path / "m.npy", np.ones(SHAPE))
    with pytest.raises(UserError, match=r"cannot write .*masks\.png"):
        show_masks([tmp_path / "m.npy"], tmp_path / "file" / "masks.png")


class Given(Scan):
    """A scan in one coil whose images are given, ``(slice, y, x)``."""

    def __init__(self, name: str, images: Tensor, geometry: Geometry) -> None:
        super().__init__(Path(name), (len(images), 1, *images.shape[1:]), geometry)
        self.images = images

    def _read(self, index: int) -> Tensor:
        return image_to_kspace(self.images[index, None] + 0j)


@pytest.mark.parametrize(("n", "indices"), [(1, [0]), (5, [0, 1, 2, 3, 4]), (23, range(0, 23, 2))])
def test_images_of_a_volume(tmp_path: Path, drawn: list[Any], n: int, indices: list[int]) -> None:
    images = torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(n))
    show_scan(Given("scan $1$.h5", images, Geometry((2.0, 1.0), 3)), tmp_path / "v.png")
    shown = pictures(drawn[0])
    expected = [np.rot90(images[i].numpy(), 3) for i in indices]
    assert np.allclose(shown, expected, atol=1e-5)
    assert len(set(greys(drawn[0]))) == 1
    assert proportions(drawn[0]) == pytest.approx(18 / 26)
    assert texts(drawn[0]) == "\n".join(["scan $1$.h5", *(f"slice {i}" for i in indices)])
    assert is_laid_out(drawn[0])


@pytest.mark.parametrize(("n", "shape"), [(1, SHAPE), (1, (90, 11)), (2, (40, 40)), (12, SHAPE)])
def test_the_page_is_as_wide_as_its_pictures(
    tmp_path: Path, drawn: list[Any], n: int, shape: tuple[int, int]
) -> None:
    images = torch.rand(n, *shape, generator=torch.Generator().manual_seed(n))
    show_scan(Given("a file of rather a long name.h5", images, Geometry()), tmp_path / "v.png")
    width = 100 * drawn[0].get_figwidth()
    left = width * min(axes.get_position().x0 for axes in drawn[0].axes)
    right = width * (1 - max(axes.get_position().x1 for axes in drawn[0].axes))
    assert left == pytest.approx(canvas.GAP)
    assert right == pytest.approx(canvas.GAP) or width == files.LEAST_WIDTH + 2 * canvas.GAP
    assert is_laid_out(drawn[0])


def test_real_scans(tmp_path: Path, drawn: list[Any]) -> None:
    folder = os.environ.get("KSCOUT_TEST_DATA")
    if not folder:
        pytest.skip("KSCOUT_TEST_DATA is not set: it names a folder with real scans")
    scans = sorted((Path(folder) / "kspace").glob("*.npy"))
    assert scans
    for path in scans:
        show_file(path, tmp_path / "scan.png", None)
        assert "fully sampled" in texts(drawn[-1])
        assert is_laid_out(drawn[-1])
