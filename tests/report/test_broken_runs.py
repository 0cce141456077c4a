"""Broken run folders: one line that names the file."""

import io
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kscout.errors import UserError
from kscout.report import load_runs
from kscout.report.html import write_report
from run_folders import SHAPE, edit


def _header_of(shape: tuple[int, ...]) -> bytes:
    """Of an array that nobody has the memory for."""
    stream = io.BytesIO()
    header = {"descr": "|b1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


def _change_examples(path: Path, **changes: Any) -> None:
    with np.load(path / "examples.npz") as before:
        arrays = {**before, **changes}
    np.savez(path / "examples.npz", **arrays)


BREAK: dict[str, tuple[str, Callable[[Path], object]]] = {
    "no run": ("status.json", lambda p: (p / "status.json").unlink()),
    "json": ("results.json", lambda p: (p / "results.json").write_text('{"name": ')),
    "field": ("results.json: n_samples", lambda p: edit(p, "n_samples", "many")),
    "missing": ("mask.npy", lambda p: (p / "mask.npy").unlink()),
    "truncated": ("mask.npy", lambda p: (p / "mask.npy").write_bytes(b"\x93NUMPY\x01")),
    "pickle": (
        "mask.npy", lambda p: np.save(p / "mask.npy", np.array([{}]), allow_pickle=True)
    ),
    "shape": ("mask.npy", lambda p: np.save(p / "mask.npy", np.ones((3, 3), bool))),
    "npz": ("examples.npz", lambda p: (p / "examples.npz").write_bytes(b"PK\x03\x04")),
    "keys": ("examples.npz", lambda p: np.savez(p / "examples.npz", reference=np.ones(3))),
    "bytes": ("metrics.csv", lambda p: (p / "metrics.csv").write_bytes(b"epoch\xff\n")),
    "folder": (
        "metrics.csv", lambda p: [(p / "metrics.csv").unlink(), (p / "metrics.csv").mkdir()]
    ),
    "huge": ("mask.npy", lambda p: (p / "mask.npy").write_bytes(_header_of((10**9, 10**9)))),
    "dtype": ("mask.npy", lambda p: np.save(p / "mask.npy", np.ones(SHAPE))),
    "images": ("examples.npz", lambda p: _change_examples(p, reference=np.ones((2, 3, 4)))),
    "numbers": ("examples.npz", lambda p: _change_examples(p, slice=np.array([1.0, 2.0]))),
    "csv": ("metrics.csv", lambda p: (p / "metrics.csv").write_text("epoch,loss\n0,1\n")),
    "yaml": ("config.yaml", lambda p: (p / "config.yaml").write_text("a: [")),
    "history": (
        "mask_history.npy", lambda p: np.save(p / "mask_history.npy", np.ones((0, *SHAPE), bool))
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", BREAK)
def test_a_broken_run_is_one_line_that_names_the_file(
    run: Path, tmp_path: Path, fault: str
) -> None:
    named, break_it = BREAK[fault]
    shutil.rmtree(run / "compare")
    break_it(run)
    with pytest.raises(UserError) as caught:
        write_report([run], tmp_path / "report.html")
    assert named in str(caught.value)
    assert str(run) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report.html").exists()
    assert not (run / "figures").exists()


@pytest.mark.parametrize("name", ["mask.npy", "examples.npz", "results.json", "metrics.csv"])
def test_mutated_files_give_a_result_or_a_user_error(run: Path, name: str) -> None:
    whole = (run / name).read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        broken = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        for place in rng.integers(len(broken), size=rng.integers(1, 4)):
            broken[place] = rng.integers(256)
        (run / name).write_bytes(broken)
        with suppress(UserError):
            for one in load_runs([run]):
                if one.results:
                    one.mask(), one.examples(), one.losses()


def test_an_unwritable_output_is_one_line(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*report\.html"):
        write_report([run / "compare/caipi"], tmp_path / "file" / "report.html")


def test_no_runs_is_an_error() -> None:
    with pytest.raises(UserError, match="at least one run"):
        load_runs([])
