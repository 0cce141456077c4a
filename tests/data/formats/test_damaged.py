"""A short run of the benchmark that reads damaged files; the long one is in the results."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "fuzz_readers.py"


def test_damaged_files_end_in_kspace_or_in_one_line():
    words = [sys.executable, BENCHMARK, "--files", "100", "--seed", "7"]
    ended = subprocess.run(words, capture_output=True, text=True, check=True, timeout=300)
    result = json.loads(ended.stdout)
    assert result["files"] == 100 * len(result["formats"])
    for kind, counts in result["formats"].items():
        assert set(counts) <= {"read", "refused", "wrong", "memory_mb"}, (kind, counts)
        assert counts["refused"] > 20
        assert counts["read"] > 5
        assert counts["memory_mb"] < 200
