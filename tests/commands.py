"""The command line as a user meets it, in this process, and a run small enough for tests."""

import sys
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import yaml

from kscout import cli

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"kind": "digits", "n_train": 64, "n_val": 16, "n_test": 16},
    "budget": {"acceleration": 4},
    "sampler": {"kind": "global", "init": "density"},
    "reconstructor": {"kind": "spirit_net", "n_blocks": 2, "kernel_size": 3},
    "training": {"epochs": 2, "batch_size": 16},
}


class Ended(NamedTuple):
    code: int
    out: str
    err: str


def kscout(capsys: Any, *words: object) -> Ended:
    """Run a command; whatever is not an orderly end, such as a traceback, comes through."""
    capsys.readouterr()
    code = 0
    with mock.patch.object(sys, "argv", ["kscout", *map(str, words)]):
        try:
            cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    return Ended(code, *capsys.readouterr())


def refused(capsys: Any, *words: object) -> str:
    """The one line with which a command refuses bad input."""
    ended = kscout(capsys, *words)
    assert ended.code == 2
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    return ended.err


def write_config(path: Path, **changes: Any) -> Path:
    """The tiny experiment as a YAML file."""
    path.write_text(yaml.safe_dump(TINY | changes, sort_keys=False))
    return path


def files_in(folder: Path) -> list[Path]:
    """All files below a folder, sorted."""
    return sorted(path for path in folder.rglob("*") if path.is_file())
