from typing import Any

import pytest

from kscout.errors import UserError
from kscout.experiment.config import check
from kscout.sweep.launch import Launch, megabytes, minutes


@pytest.mark.parametrize(
    ("text", "expected"),
    [("4G", 4096), ("500M", 500), ("1.5g", 1536), ("2TB", 2 * 2**20), (" 8 GiB ", 8192)],
)
def test_memory(text: str, expected: int) -> None:
    assert megabytes(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 90), ("1:30:00", 90), ("2-12", 60 * 60), ("2-12:30", 60 * 60 + 30),
        ("30:00", 30), ("30:01", 31), ("0:00:01", 1), ("1-00:00:00", 24 * 60),
    ],
)  # fmt: skip
def test_times_as_slurm_reads_them(text: str, expected: int) -> None:
    assert minutes(text) == expected


@pytest.mark.parametrize("text", ["", "4", "G", "-4G", "0M", "4 X", "4G 4G", "1e3G"])
def test_bad_memory(text: str) -> None:
    with pytest.raises(UserError, match="valid is a number with M, G or T"):
        megabytes(text)


@pytest.mark.parametrize("text", ["", "0", "x", "1:2", "-5", "1:30:00:00", "0:00:00", "1h"])
def test_bad_times(text: str) -> None:
    with pytest.raises(UserError, match="valid is minutes"):
        minutes(text)


@pytest.mark.parametrize(
    "options",
    [
        {"partition": "gpu"}, {"gpus": 1}, {"slurm": {"qos": "high"}}, {"max_memory_mb": 100},
        {"memory_mb": 200, "max_memory_mb": 100}, {"on": "moon"}, {"at_once": 0},
    ],
)  # fmt: skip
def test_options_that_do_not_go_together(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="options: "):
        check(Launch, options, "options")
