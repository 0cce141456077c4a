"""Laws of the comparison, against direct computation and data of a known effect."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from kscout.statistics import best_of, difference_db, interval, mean_over_slices, paired

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


def test_seeds_are_paired_one_by_one_and_average_to_the_mean() -> None:
    method, baseline = errors(1), errors(2)
    found = difference_db(method, baseline, VOLUMES)
    assert found.mean == pytest.approx(sum(found.by_seed) / 3)
    for seed, value in enumerate(found.by_seed):
        own = [10 * np.log10(b / m) for m, b in zip(method[seed], baseline[seed], strict=True)]
        assert value == pytest.approx(sum(own) / len(own))


def test_one_seed_far_off_counts_in_db_as_the_others() -> None:
    baseline = errors(1)
    gains = np.array([[3.0], [3.0], [-9.0]])  # their errors average to worse than the baseline
    found = difference_db(baseline * 10 ** (-gains / 10), baseline, VOLUMES)
    assert found.by_seed == pytest.approx((3, 3, -9))
    assert (found.mean, found.low, found.high) == pytest.approx((-1, -1, -1))


def test_a_difference_turns_round_with_its_sides_and_knows_no_scale() -> None:
    method, baseline = errors(1), errors(2)
    one, other = difference_db(method, baseline, VOLUMES), difference_db(baseline, method, VOLUMES)
    assert one.mean == pytest.approx(-other.mean)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
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


def test_an_interval_over_scans_alike_is_that_of_their_means() -> None:
    values = np.random.default_rng(0).normal(size=(7, 4)).cumsum(0)
    found = interval(values.ravel(), np.repeat(np.arange(7), 4).tolist())
    expected = stats.ttest_1samp(values.mean(1), 0).confidence_interval(0.95)
    assert found == pytest.approx((values.mean(), *expected))
    alone = interval(values[0], [3] * 4)  # of a single scan, over its slices
    assert alone[1:] == pytest.approx(stats.ttest_1samp(values[0], 0).confidence_interval(0.95))


def test_slices_count_once_however_many_a_scan_has() -> None:
    values = np.random.default_rng(1).normal(1, 1, len(VOLUMES))
    mean, low, high = interval(values, VOLUMES)
    assert mean == pytest.approx(values.mean())
    order = np.random.default_rng(2).permutation(len(VOLUMES))
    moved = interval(values[order], np.array(VOLUMES)[order].tolist())
    assert moved == pytest.approx((mean, low, high))
    without = [np.delete(values, np.array(VOLUMES) == v).mean() for v in range(11)]  # jackknife
    error = np.sqrt(10 / 11 * np.square(without - np.mean(without)).sum())
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, 10) * error, rel=0.15)


def test_slices_of_one_scan_carry_little() -> None:
    values = np.repeat([1.0, 2.0, 3.0, 6.0], 25)
    _, low, high = interval(values, np.repeat([8, 3, 5, 1], 25).tolist())
    _, low_slices, high_slices = interval(values, range(100))
    assert high_slices - low_slices < 0.25 * (high - low)


def test_one_value_has_no_interval_and_none_no_mean() -> None:
    mean, *bounds = interval(np.array([2.5]), [0])
    assert mean == 2.5
    assert np.isnan(bounds).all()
    assert np.isnan(interval(np.array([]), [])).all()


SCANS = {
    "normal": lambda rng, n: rng.normal(0, 1, n),
    "mildly skewed": lambda rng, n: rng.gamma(4, 0.5, n) - 2,
}


@pytest.mark.parametrize("of_scan", SCANS.values(), ids=SCANS)
@pytest.mark.parametrize("counts", [[3] * 10, [2, 4, 3, 3, 3, 2, 4, 3, 3, 3]])
def test_the_interval_over_ten_scans_covers_what_it_says(
    of_scan: Callable[[np.random.Generator, int], NDArray[np.float64]], counts: list[int]
) -> None:
    volumes, rng = np.repeat(np.arange(10), counts).tolist(), np.random.default_rng(3)
    n, covered = 2000, 0
    for _ in range(n):
        slices = of_scan(rng, 10)[volumes] + rng.normal(0, 0.5, len(volumes))
        _, low, high = interval(slices, volumes)
        covered += low <= 0 <= high
    assert 0.93 <= covered / n <= 0.97


def test_the_interval_over_ten_scans_of_heavy_tails_covers_less() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for values in rng.lognormal(0, 1, (4000, 10)):
        _, low, high = interval(values, range(10))
        covered += low <= np.exp(0.5) <= high
    assert 0.82 <= covered / 4000 <= 0.86


@pytest.mark.parametrize("of_scan", SCANS.values(), ids=SCANS)
def test_a_bootstrap_over_ten_scans_would_not(
    of_scan: Callable[[np.random.Generator, int], NDArray[np.float64]],
) -> None:
    rng = np.random.default_rng(3)
    values = np.stack([of_scan(rng, 10) for _ in range(1000)])
    for method in ("percentile", "BCa"):
        low, high = stats.bootstrap(
            (values,), np.mean, axis=1, n_resamples=1000, batch=50, method=method, rng=rng
        ).confidence_interval
        assert ((low <= 0) & (high >= 0)).mean() < 0.93


def test_nothing_is_claimed_without_an_effect() -> None:
    method = errors(7)
    same = difference_db(method, method, VOLUMES)
    assert (same.mean, same.low, same.high) == (0, 0, 0)
    assert same.verdict == "not distinguishable"
    shuffled = method * np.exp(np.random.default_rng(8).normal(0, 0.5, len(VOLUMES)))
    assert difference_db(shuffled, method, VOLUMES).verdict == "not distinguishable"


def test_seeds_that_disagree_leave_it_open() -> None:
    baseline = errors(9)
    gains = np.array([[2.0], [2.0], [0.2]])  # dB: all of one sign, the last far from the others
    found = difference_db(baseline * 10 ** (-gains / 10), baseline, VOLUMES)
    assert found.low > 0 < found.by_seed[2]
    assert found.verdict == "not distinguishable"
    alike = difference_db(baseline * 10 ** (-0.05 * gains - 0.1), baseline, VOLUMES)
    assert alike.verdict == "better"


def test_seeds_alone_make_few_differences() -> None:
    """Without an effect, three seeds of many slices are rarely told apart: 5 %, not 25 %."""
    rng, n, told = np.random.default_rng(0), 1000, 0
    for _ in range(n):
        ahead = rng.normal(0, 0.3, (3, 1)) + rng.normal(0, 0.1, (3, 200))
        told += paired(ahead, range(200)).verdict != "not distinguishable"
    assert 0.03 < told / n < 0.08


def test_none_is_ahead_of_the_best() -> None:
    found = {"a": errors(0) * 2, "b": errors(0), "c": errors(0) / 9}
    assert best_of(found, ["a", "b"]) == "b"
    assert best_of({"a": errors(0), "b": errors(0)}, ["a", "b"]) == "a"
    seeds = {"steady": [[1.0], [1.0]], "unsteady": [[0.1], [2.0]]}  # 5 and -3 dB, one mean above
    assert best_of({name: np.array(e) for name, e in seeds.items()}, [*seeds]) == "unsteady"
    many = {str(seed): errors(seed) for seed in range(20)}
    best = best_of(many, [*many])
    assert all(difference_db(many[m], many[best], VOLUMES).mean <= 1e-12 for m in many)
    lowest_mean = min(many, key=lambda name: float(many[name].mean()))
    assert best != lowest_mean  # one hard slice rules a mean of errors
