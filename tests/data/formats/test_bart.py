import math

import numpy as np
import pytest
import torch

from kscout.data.formats import open_scan
from kscout.data.formats.bart import write_cfl
from kscout.errors import UserError
from kscout.physics.fourier import readout_to_space
from laws import complex_normal, relative_error


def save(path, array, dims=None):
    """``array`` with its axes as BART's first dimensions, unless ``dims`` says otherwise."""
    array = np.asarray(array, "<c8")
    path.write_bytes(array.tobytes("F"))
    dims = " ".join(map(str, array.shape if dims is None else dims))
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{dims} \n# Command\nphantom\n")
    return path


@pytest.mark.parametrize("shape", [(2, 3, 7, 10), (1, 1, 5, 1), (3, 1, 1, 4)])
def test_what_is_written_reads_back_exactly(tmp_path, shape):
    kspace = complex_normal(shape)
    write_cfl(tmp_path / "a.cfl", kspace, shape)
    with open_scan(tmp_path / "a.cfl") as scan:
        assert scan.shape == shape
        assert torch.equal(scan.read_all(), kspace)
        assert scan.noise() is None
    dims = [shape[2], shape[3], 1, shape[1], *[1] * 9, shape[0], 1, 1]
    assert (tmp_path / "a.hdr").read_text().split("\n")[1].split() == [str(n) for n in dims]


def test_the_first_dimension_changes_fastest(tmp_path):
    array = np.arange(24).reshape(2, 3, 1, 4)
    with open_scan(save(tmp_path / "a.cfl", array)) as scan:
        assert scan.shape == (1, 4, 2, 3)
        assert np.array_equal(scan.read(0).real.numpy(), array[:, :, 0].transpose(2, 0, 1))


@pytest.mark.parametrize("shape", [(6, 5, 4, 2), (7, 4, 5, 1), (1, 4, 5, 3)])
def test_the_readout_of_a_volume_is_transformed(tmp_path, monkeypatch, shape):
    monkeypatch.setattr("kscout.data.formats.scan._BLOCK_BYTES", 4 * 8 * math.prod(shape[1:]))
    volume = complex_normal(shape)
    with open_scan(save(tmp_path / "a.cfl", volume.numpy())) as scan:
        assert scan.shape == (shape[0], shape[3], shape[1], shape[2])
        expected = readout_to_space(volume.movedim(0, -1)).permute(3, 2, 0, 1)
        assert relative_error(scan.read_all(), expected) < 1e-5


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ([4, 3, 1, 2, 2], "dimension 4 .maps. has 2: valid is 1 in all but 0, 1, 2, 3, 13"),
        ([4, 3, 1, 2, 1, 1, 1, 1, 1, 1, 2], "dimension 10 .time. has 2"),
        ([4, 3, 2, 1, *[1] * 9, 2], r"2 \(2\) and 13 \(2\) are both more than 1"),
        ([4, 3, 1, 5], "announces 480 bytes of data and 384 are there"),
        ([4, 3, 1, 0], "truncated or damaged"),
        ([4, -3, 1, 4], "no dimensions"),
        ([10**14, 10**14], "truncated or damaged"),
        ([10**20], "no dimensions"),
        (["x"], "no dimensions"),
        ([1] * 17, "no dimensions"),
        ([], "no dimensions"),
    ],
)
def test_bad_headers_are_refused(tmp_path, dims, message):
    n = math.prod(dims) if message.startswith("dim") or "both" in message else 48
    path = save(tmp_path / "a.cfl", np.ones(n), dims)
    with pytest.raises(UserError, match=message) as caught:
        open_scan(path)
    assert "\n" not in str(caught.value)


def test_a_header_that_is_missing_or_no_text_is_named(tmp_path):
    path = save(tmp_path / "a.cfl", np.ones((4, 3)))
    path.with_suffix(".hdr").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"a\.hdr: is no header of BART"):
        open_scan(path)
    path.with_suffix(".hdr").write_bytes(b"1" * 10**6)
    with pytest.raises(UserError, match="too long"):
        open_scan(path)
    path.with_suffix(".hdr").unlink()
    with pytest.raises(UserError, match=r"a\.cfl: its header a\.hdr cannot be read: No such file"):
        open_scan(path)


def test_a_slice_with_nan_is_refused_when_it_is_read(tmp_path):
    array = np.ones((2, 3, 1, 1, *[1] * 9, 2), np.complex64)
    array.reshape(-1, order="F")[-1] = np.nan
    with open_scan(save(tmp_path / "a.cfl", array)) as scan:
        assert scan.read(0).shape == (1, 2, 3)
    array[..., 1] = np.nan
    with (
        open_scan(save(tmp_path / "a.cfl", array)) as scan,
        pytest.raises(UserError, match="slice 1 holds NaN"),
    ):
        scan.read_all()


def test_nothing_is_left_of_a_failed_write(tmp_path):
    def slices():
        yield torch.ones(1, 2, 3)
        raise UserError("slice 1 cannot be read")

    with pytest.raises(UserError):
        write_cfl(tmp_path / "a.cfl", slices(), (2, 1, 2, 3))
    assert not list(tmp_path.iterdir())
