import itertools
import math
import random

import h5py
import numpy as np
import pytest
import torch

from kscout.data.files import files, read_geometry, read_kspace
from kscout.data.formats import sampled_points
from kscout.data.slices import Geometry
from kscout.data.writers import write_hdf5
from kscout.errors import UserError


def save(path, array):
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        with h5py.File(path, "w") as file:
            file["kspace"] = array
    return path


def scans(folder, n, shape=(2, 3, 7, 10)):
    """``n`` files of random k-space, of which no two are equal."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        generator = torch.Generator().manual_seed(i)
        kspace = torch.randn(shape, dtype=torch.complex64, generator=generator)
        write_hdf5(folder / f"scan{i}.h5", kspace * 10**i)
    return folder


@pytest.mark.parametrize(
    ("name", "rank", "shape"),
    [
        ("a.npy", 4, (2, 3, 7, 10)),
        ("a.npy", 3, (1, 3, 7, 10)),
        ("a.npy", 2, (1, 1, 7, 10)),
        ("a.h5", 4, (2, 3, 7, 10)),
        ("a.hdf5", 3, (3, 1, 7, 10)),  # single-coil: the first axis is the slice
    ],
)
@pytest.mark.parametrize("dtype", ["<c8", ">c8", "<c16"])
def test_layouts_are_read_as_slice_coil_plane(tmp_path, kspace, name, rank, shape, dtype):
    array = kspace.numpy()[(0,) * (4 - rank)]
    read = read_kspace(save(tmp_path / name, array.astype(dtype)))
    assert read.dtype == torch.complex64
    assert read.shape == shape
    np.testing.assert_array_equal(read.numpy().reshape(array.shape), array)


def test_fortran_order_and_compression_are_read(tmp_path, kspace):
    np.save(tmp_path / "a.npy", np.asfortranarray(kspace.numpy()))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("kspace", data=kspace.numpy(), compression="gzip", chunks=(1, 3, 7, 5))
    for name in ("a.npy", "a.h5"):
        assert torch.equal(read_kspace(tmp_path / name), kspace)


def bad_array(kind):
    good = np.ones((2, 3, 7, 10), np.complex64)
    if kind in ("NaN", "infinity"):
        good[1, 2, 3, 4] = complex(0, np.nan if kind == "NaN" else np.inf)
    return {
        "real": good.real,
        "integer": good.real.astype(int),
        "rank 1": good[0, 0, 0],
        "rank 5": good[None],
        "empty": good[:0],
        "zeros": np.zeros_like(good),
        "too large for complex64": np.full(good.shape, 1e60 + 0j),
    }.get(kind, good)


@pytest.mark.parametrize("suffix", [".npy", ".h5"])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("real", "dtype is float32: k-space is complex"),
        ("integer", "dtype is int64"),
        ("rank 1", r"shape is \(10,\): valid is"),
        ("rank 5", "shape is .*: valid is"),
        ("empty", "is empty"),
        ("zeros", "nothing but zeros"),
        ("NaN", "NaN or infinity"),
        ("infinity", "NaN or infinity"),
        ("too large for complex64", "NaN or infinity"),
    ],
)
def test_bad_arrays_are_refused_in_one_line(tmp_path, suffix, kind, message):
    path = save(tmp_path / f"bad{suffix}", bad_array(kind))
    with pytest.raises(UserError, match=message) as error:
        read_kspace(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_foreign_and_truncated_files_are_refused(tmp_path, kspace):
    save(tmp_path / "good.h5", kspace.numpy())
    save(tmp_path / "good.npy", kspace.numpy())
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "text.h5").write_text("not HDF5")
    (tmp_path / "text.npy").write_text("not NumPy")
    (tmp_path / "nothing.h5").write_bytes(b"")
    (tmp_path / "scan.dat").write_bytes(b"raw")
    (tmp_path / "folder.h5").mkdir()
    for name in ("good.h5", "good.npy"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / f"cut_{name}").write_bytes(whole[:-100])
    with h5py.File(tmp_path / "image.h5", "w") as file:
        file["image"] = np.ones((2, 2))
    with h5py.File(tmp_path / "group.h5", "w") as file:
        file.create_group("kspace")
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["kspace"] = h5py.ExternalLink("good.h5", "kspace")
    for name, message in {
        "missing.npy": "no such file",
        "folder.h5": "is not a file",
        "scan.dat": "unknown format",
        "objects.npy": "Python objects",
        "text.npy": "is not a NumPy",
        "text.h5": "is not a readable HDF5",
        "nothing.h5": "is not a readable HDF5",
        "cut_good.h5": "is not a readable HDF5",
        "cut_good.npy": "truncated",
        "image.h5": "holds image: a dataset 'kspace' is needed",
        "group.h5": "is not a dataset",
        "link.h5": "a dataset 'kspace' is needed",
    }.items():
        with pytest.raises(UserError, match=message):
            read_kspace(tmp_path / name)


def test_sizes_are_checked_before_memory_is_taken(tmp_path):
    shape = (10**4, 10**3, 10**3, 10**3)  # 80 TB
    with (tmp_path / "a.npy").open("wb") as stream:
        header = {"descr": "<c8", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("kspace", shape, "c8", chunks=(1, 1, 100, 100))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("kspace", shape, "c8")
    for name in ("a.npy", "a.h5", "b.h5"):
        with pytest.raises(UserError, match="truncated or damaged"):
            read_kspace(tmp_path / name)


@pytest.mark.parametrize("suffix", [".npy", ".h5"])
def test_damaged_files_give_a_result_or_a_user_error(tmp_path, kspace, suffix):
    rng = random.Random(7)
    good = save(tmp_path / f"good{suffix}", kspace.numpy()).read_bytes()
    path = tmp_path / f"bad{suffix}"
    messages = []
    for _ in range(300):
        data = bytearray(good)
        for _ in range(rng.choice([1, 1, 3, 20])):
            data[rng.randrange(min(len(data), rng.choice([128, 2500, len(data)])))] = rng.choice(
                [0, 255, rng.randrange(256)]
            )
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        path.write_bytes(data)
        try:
            assert read_kspace(path).ndim == 4
        except UserError as error:
            messages.append(str(error))
    assert not any("\n" in message for message in messages)
    assert 50 < len(messages) < 300


def test_a_folder_is_split_by_scan(tmp_path):
    folder = scans(tmp_path / "scans", 10)
    splits = files(path=folder, val_fraction=0.1, test_fraction=0.2, split_seed=3)
    volumes = {name: part.volume.unique().tolist() for name, part in splits.items()}
    assert [len(v) for v in volumes.values()] == [7, 1, 2]
    assert sorted(itertools.chain(*volumes.values())) == list(range(10))
    for part in splits.values():
        assert part.target is part.kspace
        for volume in part.volume.unique():
            assert float(part.kspace[part.volume == volume].abs().max()) == pytest.approx(1)
    again = files(path=folder, split_seed=3)
    other = files(path=folder, split_seed=4)
    assert torch.equal(again["test"].kspace, splits["test"].kspace)
    assert not torch.equal(other["test"].kspace, splits["test"].kspace)


def test_scans_are_named_one_by_one_or_by_folder(tmp_path):
    folder = scans(tmp_path / "train", 2)
    test = scans(tmp_path / "more", 4) / "scan3.h5"
    splits = files(train=(folder,), test=(test,), scale="none")
    assert len(splits["train"]) == 4
    assert splits["val"].kspace.shape == (0, 3, 7, 10)
    assert torch.equal(splits["test"].kspace, read_kspace(test))


def test_geometry_comes_from_the_file_unless_it_is_given(tmp_path, kspace):
    for i in range(2):
        write_hdf5(tmp_path / f"{i}.h5", kspace, Geometry((0.5, 2.0), 3, 4.5))
    train, test = (tmp_path / "0.h5",), (tmp_path / "1.h5",)
    said = files(train=train, test=test)["test"]
    assert said.geometry == Geometry((0.5, 2.0), 3, 4.5)
    given = files(train=train, test=test, voxel_size=(1.0, 1.5), quarter_turns=0)["test"]
    assert given.geometry == Geometry((1.0, 1.5), 0, 4.5)


SENSELESS = {"voxel_size": (0.5, -2.0), "quarter_turns": math.inf, "slice_thickness": (3.0, 3.0)}


@pytest.mark.parametrize("name", SENSELESS)
def test_what_a_file_says_without_sense_is_not_believed(tmp_path, kspace, name):
    said = Geometry((0.5, 2.0), 3, 4.5)
    for value in (SENSELESS[name], "many", math.nan):
        write_hdf5(tmp_path / "a.h5", kspace, said)
        with h5py.File(tmp_path / "a.h5", "a") as file:
            file.attrs[name] = value
        assert getattr(read_geometry(tmp_path / "a.h5"), name) == getattr(Geometry(), name)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file.attrs[name]
    assert read_geometry(tmp_path / "a.h5") == said._replace(**{name: getattr(Geometry(), name)})


def test_impossible_splits_are_refused(tmp_path):
    folder = scans(tmp_path / "scans", 2)
    one, two = folder / "scan0.h5", folder / "scan1.h5"
    (tmp_path / "empty").mkdir()
    odd = scans(tmp_path / "odd", 1, (2, 4, 7, 10)) / "scan0.h5"
    for options, message in [
        ({}, "give path"),
        ({"train": (one,)}, "both train and test"),
        ({"path": folder, "test": (one,)}, "not both"),
        ({"path": tmp_path / "none"}, "no such folder"),
        ({"path": tmp_path / "empty"}, "no k-space files"),
        ({"path": folder, "val_fraction": 0.5, "test_fraction": 0.5}, "leave none to train on"),
        ({"train": (one,), "test": (folder / ".." / "scans" / "scan0.h5",)}, "named for 'train'"),
        ({"train": (one, two), "test": (odd,)}, rf"{odd}: .*\(4, 7, 10\) .* \(3, 7, 10\)"),
    ]:
        with pytest.raises(UserError, match=message):
            files(**options)


def test_undersampled_scans_are_not_trained_on(tmp_path, kspace):
    mask = torch.zeros(7, 10)
    mask[:, ::2] = 1
    paths = [tmp_path / f"{name}.npy" for name in ("full", "half", "gap")]
    gap = kspace.clone()
    gap[1] = 0
    for path, scan in zip(paths, (kspace, kspace * mask, gap), strict=True):
        np.save(path, scan.numpy())
    assert torch.equal(sampled_points(read_kspace(paths[1])), mask.bool())
    with pytest.raises(UserError, match="35 of 70 k-space points are zero"):
        files(train=paths[:1], test=paths[1:2])
    with pytest.raises(UserError, match="slice 1 holds nothing"):
        files(train=paths[:1], test=paths[2:])


def test_real_scans_are_read(real_data):
    for path in sorted((real_data / "kspace").glob("*.npy")):
        kspace = read_kspace(path)
        assert kspace.shape[0] == 1
        assert sampled_points(kspace).all()
    names = [real_data / "kspace" / f"brain_{n}_4ch_256x256.npy" for n in ("mprage", "t2")]
    splits = files(train=names[:1], test=names[1:])
    assert splits["test"].kspace.abs().max() == pytest.approx(1)
