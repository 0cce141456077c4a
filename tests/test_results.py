"""The published numbers: README and `results/` agree, and reach what was aimed at."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BENCHMARKS = json.loads((ROOT / "results" / "benchmarks.json").read_text())


def table_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


def test_the_readme_shows_the_tables_of_results() -> None:
    readme = (ROOT / "README.md").read_text()
    shown = readme.split("<!-- results:begin -->")[1].split("<!-- results:end -->")[0]
    kept = [
        line
        for name in ("demo.md", "digits.md")
        for line in table_lines((ROOT / "results" / name).read_text())
    ]
    assert table_lines(shown) == kept
    assert len(kept) > 20


def test_every_result_names_its_command() -> None:
    for entry in BENCHMARKS.values():
        assert entry["command"].startswith(("python benchmarks/", "kscout "))
    for name in ("demo.md", "digits.md"):
        assert "    kscout train configs/" in (ROOT / "results" / name).read_text()


@pytest.mark.parametrize(
    ("benchmark", "key", "low", "high"),
    [
        ("closed_form", "nmse_test", 0, 4e-5),
        ("closed_form", "seconds", 0, 120),
        ("spirit_step", "ratio", 5, float("inf")),
        ("spirit_step", "max_rel_error", 0, 1e-4),
        ("digits", "nmse_kspace", 0, 0.078),
        ("digits", "psnr", 21.2, float("inf")),
        ("tile_search", "seconds_search", 0, 600),
    ],
)
def test_the_kept_results_reach_the_aims(benchmark: str, key: str, low: float, high: float) -> None:
    assert low <= BENCHMARKS[benchmark]["result"][key] <= high
