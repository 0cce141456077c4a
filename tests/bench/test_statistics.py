"""Laws of the comparison, against direct computation and data of a known effect."""

import numpy as np
import pytest
from numpy.typing import NDArray

from kscout.bench.statistics import best_of, difference_db, mean_over_slices

VOLUMES = np.repeat(np.arange(11), [3, 1, 4, 2, 3, 3, 1, 2, 5, 3, 2]).tolist()


def errors(seed: int, n_seeds: int = 3, volumes: list[int] = VOLUMES) -> NDArray[np.float64]:
    """Errors that differ much between volumes, less between slices, and little between seeds."""
    rng = np.random.default_rng(seed)
    level = rng.normal(-4, 1, max(volumes) + 1)[volumes]
    slices = rng.normal(0, 0.3, len(volumes))
    return np.exp(level + slices + rng.normal(0, 0.05, (n_seeds, len(volumes))))


def test_the_mean_and_the_spread_over_seeds_are_those_of_the_definition() -> None:
    scores = errors(0)
    found = mean_over_slices(scores, VOLUMES)
    assert found.mean == pytest.approx(sum(map(sum, scores.tolist())) / scores.size)
    means = [sum(row) / len(row) for row in scores.tolist()]
    middle = sum(means) / 3
    assert found.seed_std == pytest.approx((sum((m - middle) ** 2 for m in means) / 2) ** 0.5)
    assert found.low < found.mean < found.high


def test_seeds_are_averaged_slice_by_slice_before_they_are_paired() -> None:
    method, baseline = errors(1), errors(2)
    found = difference_db(method, baseline, VOLUMES)
    paired = [
        10 * np.log10(sum(b) / sum(m))
        for m, b in zip(method.T.tolist(), baseline.T.tolist(), strict=True)
    ]
    assert found.mean == pytest.approx(sum(paired) / len(paired))
    for seed, value in enumerate(found.by_seed):
        own = [10 * np.log10(b / m) for m, b in zip(method[seed], baseline[seed], strict=True)]
        assert value == pytest.approx(sum(own) / len(own))


def test_a_difference_turns_round_with_its_sides_and_knows_no_scale() -> None:
    method, baseline = errors(1), errors(2)
    one, other = difference_db(method, baseline, VOLUMES), difference_db(baseline, method, VOLUMES)
    assert one.mean == pytest.approx(-other.mean)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=0.25)
    each = np.random.default_rng(5).uniform(0.01, 100, len(VOLUMES))
    scaled = difference_db(method * each, baseline * each, VOLUMES)
    assert scaled.mean == pytest.approx(one.mean)
    assert (scaled.low, scaled.high) == pytest.approx((one.low, one.high))


def test_a_small_effect_is_seen_where_scans_differ_a_hundredfold() -> None:
    baseline = errors(3)
    rng = np.random.default_rng(4)
    ahead = 10 ** (-(0.4 + rng.normal(0, 0.2, baseline.shape)) / 10)
    found = difference_db(baseline * ahead, baseline, VOLUMES)
    assert found.verdict == "better"
    assert found.low < 0.4 < found.high
    assert found.high - found.low < 0.4
    assert difference_db(baseline / ahead, baseline, VOLUMES).verdict == "worse"


def test_the_interval_covers_the_effect_about_as_often_as_it_says() -> None:
    volumes = np.repeat(np.arange(25), 3).tolist()
    rng = np.random.default_rng(6)
    covered = 0
    for i in range(150):
        baseline = errors(100 + i, volumes=volumes)
        of_scan = rng.normal(0.3, 0.5, 25)[volumes]
        found = difference_db(baseline * 10 ** (-of_scan / 10), baseline, volumes)
        covered += found.low <= 0.3 <= found.high
    assert 0.86 <= covered / 150 <= 0.99


def test_nothing_is_claimed_without_an_effect() -> None:
    method = errors(7)
    same = difference_db(method, method, VOLUMES)
    assert (same.mean, same.low, same.high) == (0, 0, 0)
    assert same.verdict == "not distinguishable"
    shuffled = method * np.exp(np.random.default_rng(8).normal(0, 0.5, len(VOLUMES)))
    assert difference_db(shuffled, method, VOLUMES).verdict == "not distinguishable"


def test_seeds_that_disagree_leave_it_open() -> None:
    baseline = errors(9)
    gains = np.array([[2.0], [2.0], [-0.3]])  # dB: the mean is clear, the last seed is not
    found = difference_db(baseline * 10 ** (-gains / 10), baseline, VOLUMES)
    assert found.low > 0 > found.by_seed[2]
    assert found.verdict == "not distinguishable"


def test_the_best_is_that_of_the_lowest_mean() -> None:
    found = {"a": errors(0) * 2, "b": errors(0), "c": errors(0) / 9}
    assert best_of(found, ["a", "b"]) == "b"
    assert best_of({"a": errors(0), "b": errors(0)}, ["a", "b"]) == "a"
