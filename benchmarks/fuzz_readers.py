"""Damaged files of every format, read: each must end in k-space or in one line.

    python benchmarks/fuzz_readers.py
    python benchmarks/fuzz_readers.py --files 100 --seed 7

Small valid files are mutated (bits flipped, cut, spliced, numbers of headers changed), from one
seed. A worker opens each, finds the pattern that was sampled, reads noise and calibration, and
writes the images of all slices as NIfTI; the process that started it counts. Prints one JSON object
of counts by format: ``read``, ``refused`` (a UserError of one line), ``traceback`` (any other
exception), ``memory`` (refused only because memory ran out), ``crash`` (the worker died) and
``hang`` (longer than the limit), and by how many MB the memory of a worker exceeded that of the
process that started it.
"""

import argparse
import gzip
import json
import multiprocessing
import random
import re
import resource
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import ismrmrd.xsd as xsd
import nibabel
import numpy as np
import torch

from kscout.data.formats import open_scan
from kscout.data.formats.bart import write_cfl
from kscout.data.formats.samples import open_samples, read_trajectory, samples_of
from kscout.data.writers import write_nifti, write_scan
from kscout.errors import UserError
from kscout.sampling.pattern import find_pattern

LIMIT = 20.0
"""Seconds for one file, none of which is larger than 100 kB."""

MEMORY = 2**31
"""Bytes that a worker may take on top of what it starts with."""

INTEGERS = (0, 1, 2, 7, 127, 128, 255, 256, 32767, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)
WORDS = ("0", "-1", "1", "3", "65535", "99999", "2147483648", "99999999999999999999", "nan", "x")

PLANE = torch.tensor([1.0, 1.0, 0.0])[:, None]
"""Takes the third coordinate of a trajectory away."""

Files = dict[str, bytes]
"""What lies beside each other under one name, by suffix; the first is opened."""


def kspace(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))


def mrd(path: Path, matrix: tuple[int, int, int], mode: str = "embedded") -> None:
    """Two coils, two slices, oversampled twice, with noise and ACS, which may be separate."""
    sizes = xsd.matrixSizeType(x=2 * matrix[0], y=matrix[1], z=matrix[2])
    recon = xsd.matrixSizeType(x=matrix[0], y=matrix[1], z=matrix[2])
    lengths, recon_lengths = (xsd.fieldOfViewMm(x=x, y=9.0, z=9.0) for x in (18.0, 9.0))
    header = xsd.ismrmrdHeader(
        experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=64_000_000),
        encoding=[
            xsd.encodingType(
                encodedSpace=xsd.encodingSpaceType(matrixSize=sizes, fieldOfView_mm=lengths),
                reconSpace=xsd.encodingSpaceType(matrixSize=recon, fieldOfView_mm=recon_lengths),
                encodingLimits=xsd.encodingLimitsType(
                    kspace_encoding_step_1=xsd.limitType(
                        minimum=0, maximum=matrix[1] - 1, center=matrix[1] // 2
                    )
                ),
                trajectory=xsd.trajectoryType.CARTESIAN,
                parallelImaging=xsd.parallelImagingType(
                    accelerationFactor=xsd.accelerationFactorType(
                        kspace_encoding_step_1=1, kspace_encoding_step_2=1
                    ),
                    calibrationMode=xsd.calibrationModeType(mode),
                ),
            )
        ],
    )
    samples = kspace(2, 2 * matrix[0]).numpy()
    with ismrmrd.Dataset(str(path), mode="w") as dataset:
        dataset.write_xml_header(xsd.ToXML(header).encode())
        n_lines = 2 * matrix[1] * matrix[2]
        for number in range(1 + n_lines * (2 if mode == "separate" else 1)):
            acquisition = ismrmrd.Acquisition.from_array(samples)
            acquisition.center_sample = matrix[0]
            if number == 0:
                acquisition.setFlag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
            else:
                rest, acquisition.idx.slice = divmod((number - 1) % n_lines, 2)
                second, first = divmod(rest, matrix[1])
                acquisition.idx.kspace_encode_step_1 = first
                acquisition.idx.kspace_encode_step_2 = second
                if number > n_lines:
                    acquisition.setFlag(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION)
                elif abs(first - matrix[1] // 2) < 2:
                    acquisition.setFlag(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING)
            dataset.append_acquisition(acquisition)


def fastmri(path: Path) -> None:
    mrd(path.with_suffix(".mrd"), (4, 10, 1))
    with h5py.File(path.with_suffix(".mrd")) as file:
        xml = file["dataset/xml"][0]
    with h5py.File(path, "w") as file:
        data = kspace(3, 2, 8, 10).numpy()
        file.create_dataset("kspace", data=data, chunks=(1, 2, 8, 5), compression="gzip")
        file["mask"] = np.arange(10) % 2 == 0
        file["ismrmrd_header"] = xml
        file["noise"] = kspace(2, 30).numpy()


def make(folder: Path) -> dict[str, Files]:
    """A valid file of every kind."""
    images = kspace(3, 7, 6).abs()
    mrd(folder / "flat.mrd", (6, 8, 1))
    mrd(folder / "volume.mrd", (5, 6, 4))
    mrd(folder / "separate.mrd", (5, 8, 1), "separate")
    fastmri(folder / "fastmri.h5")
    np.save(folder / "array.npy", kspace(2, 3, 7, 6).numpy())
    write_cfl(folder / "array.cfl", kspace(2, 3, 7, 6), (2, 3, 7, 6))
    np.save(folder / "places.traj.npy", kspace(30, 2).real.numpy())
    np.save(folder / "values.samples.npy", kspace(3, 2, 30).numpy())
    write_cfl(folder / "values.samples.cfl", kspace(3, 2, 1, 30), (3, 2, 1, 30))
    write_cfl(folder / "spokes.traj.cfl", kspace(1, 1, 3, 9) * PLANE, (1, 1, 3, 9))
    write_nifti(folder / "image.nii", images)
    with open_scan(folder / "image.nii") as scan:
        write_scan(folder / "kscout.h5", scan, lambda done, total: None)
    nibabel.save(
        nibabel.Nifti1Image((100 * images.permute(1, 2, 0)).numpy().astype(np.int16), np.eye(4)),
        folder / "scaled.nii.gz",
    )
    parts = {
        "ismrmrd": ["flat.mrd"],
        "ismrmrd_3d": ["volume.mrd"],
        "ismrmrd_separate": ["separate.mrd"],
        "fastmri": ["fastmri.h5"],
        "kscout": ["kscout.h5"],
        "npy": ["array.npy"],
        "bart": ["array.cfl", "array.hdr"],
        "trajectory": ["places.traj.npy"],
        "trajectory_bart": ["spokes.traj.cfl", "spokes.traj.hdr"],
        "samples": ["values.samples.npy"],
        "samples_bart": ["values.samples.cfl", "values.samples.hdr"],
        "nifti": ["image.nii"],
        "nifti_gz": ["scaled.nii.gz"],
    }
    return {
        kind: {name[name.index(".") :]: (folder / name).read_bytes() for name in names}
        for kind, names in parts.items()
    }


def flip_bits(data: bytearray, rng: random.Random) -> None:
    reach = min(len(data), rng.choice((128, 3000, len(data))))
    for _ in range(rng.choice((1, 1, 2, 8, 40))):
        data[rng.randrange(reach)] ^= 1 << rng.randrange(8)


def cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def splice(data: bytearray, rng: random.Random) -> None:
    n = rng.choice((1, 4, 16, 200))
    start, to = rng.randrange(len(data)), rng.randrange(len(data))
    piece = rng.choice((data[start : start + n], rng.randbytes(n), bytes(n), b"\xff" * n))
    data[to : to + rng.choice((0, len(piece)))] = piece


def change_number(data: bytearray, rng: random.Random) -> None:
    """An integer of 1 to 8 bytes, near the start if there are many bytes; or one of text."""
    found = list(re.finditer(rb"\d+", data)) if rng.random() < 0.5 else []
    text = [match for match in found if len(match[0]) < 20]
    if text:
        match = rng.choice(text)
        data[match.start() : match.end()] = rng.choice(WORDS).encode()
        return
    size = rng.choice((1, 2, 4, 8))
    at = rng.randrange(min(len(data), rng.choice((400, 4000, len(data)))))
    at -= at % rng.choice((1, 2, 4))
    number = rng.choice(INTEGERS) % 2 ** (8 * size)
    data[at : at + size] = number.to_bytes(size, rng.choice(("little", "little", "big")))


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    flip_bits, flip_bits, cut, splice, change_number, change_number,
)  # fmt: skip


def mutate(files: Files, rng: random.Random) -> Files:
    """One or a few mutations of one of the files; inside, where it is compressed, half the time."""
    suffix = rng.choice(list(files))
    inside = suffix.endswith(".gz") and rng.random() < 0.5
    data = bytearray(gzip.decompress(files[suffix]) if inside else files[suffix])
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if data:
            rng.choice(MUTATIONS)(data, rng)
    return {**files, suffix: gzip.compress(bytes(data), 1) if inside else bytes(data)}


def read_on_the_grid(path: Path) -> None:
    with open_scan(path) as scan:
        find_pattern(scan.sampled())
        scan.noise()
        for _ in scan.reference or ():
            pass
        write_scan(path.with_name("written.nii"), scan, lambda done, total: None)


def read_samples(path: Path) -> None:
    samples = open_samples(path)
    for index in range(len(samples)):
        samples_of(samples, index, path)


def outcome(path: Path) -> str:
    """How reading ends, in one word and what was said."""
    try:
        if ".traj" in path.name:
            read_trajectory(path)
        elif ".samples" in path.name:
            read_samples(path)
        else:
            read_on_the_grid(path)
    except UserError as error:
        if isinstance(error.__cause__, MemoryError) or "allocate" in str(error):
            return f"memory {error}"
        return "traceback several lines" if "\n" in str(error) else "refused"
    except Exception as error:
        return f"traceback {type(error).__name__}: {error}"
    return "read"


def work(cases: "list[tuple[int, Files]]", folder: Path, pipe: Connection) -> None:
    """Read cases one after another; say before and after each."""
    warnings.simplefilter("ignore")
    virtual = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (virtual + MEMORY, virtual + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number, files in cases:
        for suffix, data in files.items():
            (folder / f"case{suffix}").write_bytes(data)
        pipe.send((number, outcome(folder / f"case{next(iter(files))}"), memory()))


def memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def fuzz(cases: list[Files], folder: Path) -> dict[str, Any]:
    """Counts of outcomes, the first few that went wrong, and the memory it took."""
    ended: list[str] = []
    most, start = 0.0, memory()
    context = multiprocessing.get_context("fork")
    while len(ended) < len(cases):
        receiver, sender = context.Pipe(duplex=False)
        rest = list(enumerate(cases))[len(ended) :]
        worker = context.Process(target=work, args=(rest, folder, sender))
        worker.start()
        sender.close()
        try:
            while len(ended) < len(cases):
                if not receiver.poll(LIMIT):
                    ended.append("hang")
                    break
                _, said, used = receiver.recv()
                ended.append(said)
                most = max(most, used - start)
        except EOFError:
            worker.join()
            ended.append(f"crash, exit code {worker.exitcode}")
        worker.kill()
        worker.join()
    words = [said.split(" ", 1)[0].rstrip(",") for said in ended]
    wrong = [f"{i}: {said}" for i, said in enumerate(ended) if said not in ("read", "refused")]
    return {**Counter(words), "wrong": wrong[:5], "memory_mb": round(most, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--files", type=int, default=1000, help="of each format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for files that went wrong")
    given = parser.parse_args()
    torch.set_num_threads(1)
    counts, total = {}, Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        for kind, files in make(Path(name)).items():
            assert outcome(save(files, Path(name) / "valid")) == "read", kind
            rng = random.Random(f"{given.seed} {kind}")
            cases = [mutate(files, rng) for _ in range(given.files)]
            counts[kind] = fuzz(cases, Path(name))
            for number in (int(said.split(":")[0]) for said in counts[kind]["wrong"]):
                if given.keep:
                    save(cases[number], given.keep / f"{kind}-{number}")
            total.update({k: v for k, v in counts[kind].items() if isinstance(v, int)})
    print(json.dumps({"files": given.files * len(counts), "total": total, "formats": counts}))


def save(files: Files, name: Path) -> Path:
    name.parent.mkdir(parents=True, exist_ok=True)
    for suffix, data in files.items():
        name.with_name(name.name + suffix).write_bytes(data)
    return name.with_name(name.name + next(iter(files)))


if __name__ == "__main__":
    main()
