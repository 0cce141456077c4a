"""Acquisition step by step: exact scores on a toy, exact budgets, refused actions."""

from itertools import chain

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from kscout.acquisition.env import AcquisitionVectorEnv, initial_lines
from kscout.acquisition.policies import (
    LowFrequencyRandomPolicy,
    OraclePolicy,
    OrderPolicy,
    RandomPolicy,
    choose,
    greedy_order,
    low_to_high,
    one_side_first,
)
from kscout.acquisition.process import METRICS, Process, State
from kscout.acquisition.rollout import roll_out
from kscout.data import KspaceSet
from kscout.errors import UserError
from kscout.physics.fourier import image_to_kspace
from kscout.recon import RECONSTRUCTORS
from kscout.sampling.units import Units
from laws import complex_normal

SHAPE = (12, 13)


def slices(n: int = 5, n_coils: int = 2, shape: tuple[int, int] = SHAPE) -> KspaceSet:
    """Slices of noise that falls towards high frequencies; two scans, the last slice alone."""
    kspace = complex_normal((n, n_coils, *shape), seed=n)
    kspace = kspace / (1 + Units.of(shape, "points").distance.reshape(shape) * 8).float()
    volume = torch.tensor([0] * (n - 1) + [1])
    return KspaceSet(kspace, kspace, volume, torch.ones(n_coils))


def process(
    data: KspaceSet | None = None,
    units: str = "lines",
    n_initial: int = 2,
    budget: int = 4,
    **options,
) -> Process:  # type: ignore[no-untyped-def]
    data = slices() if data is None else data
    net = RECONSTRUCTORS["zero_filled"](data.n_coils, 0)
    chosen = Units.of(data.shape, units, (3, 4))  # type: ignore[arg-type]
    return Process(data, net, units=chosen, n_initial=n_initial, budget=budget, **options)


def test_scores_rewards_and_ends_are_those_of_a_delta() -> None:
    """An image of one pixel has k-space of one modulus: each line adds 1/n of its amplitude."""
    image = torch.zeros(1, 1, *SHAPE, dtype=torch.complex64)
    image[..., 6, 6] = 2
    kspace = image_to_kspace(image)
    data = KspaceSet(kspace, kspace, torch.zeros(1, dtype=torch.int64), torch.ones(1))
    scan = process(data, budget=3, metric="mse")
    state = scan.start(torch.tensor([0]))
    scores, rewards, ends = [state.score], [], []
    for action in (0, 12, 3):
        state, reward = scan.step(state, torch.tensor([action]))
        scores.append(state.score)
        rewards.append(reward)
        ends.append(scan.is_done(state))
    columns, expected = [6, 5], []
    for action in (None, 0, 12, 3):
        columns += [] if action is None else [action]
        x = np.arange(13) - 6
        row = np.abs(sum(np.exp(2j * np.pi * (k - 6) * x / 13) for k in columns)) * 2 / 13
        expected.append(np.square(row - 2 * (x == 0)).sum() / (12 * 13))
    assert torch.cat(scores).tolist() == pytest.approx(expected, rel=1e-5)
    assert torch.cat(rewards).tolist() == pytest.approx(-np.diff(expected), rel=1e-5)
    assert ends == [False, False, True]


def test_every_metric_is_that_of_the_images() -> None:
    data, index = slices(), torch.tensor([3, 4])  # of two scans, each with a maximum of its own
    reference = data.image(data.target)
    peaks = [reference[:4].max(), reference[4].max()]
    for metric in METRICS:
        state = process(data, metric=metric).start(index)
        for row, i in enumerate(index.tolist()):
            image, true, peak = state.image[row], reference[i], float(peaks[row])
            mse = float((image - true).double().square().mean())
            expected = {
                "mse": mse,
                "nmse": mse / float(true.double().square().mean()),
                "psnr": 10 * np.log10(peak**2 / mse),
                "ssim": structural_similarity(
                    image.double().numpy(),
                    true.double().numpy(),
                    data_range=peak,
                    gaussian_weights=True,
                    sigma=1.5,
                    use_sample_covariance=False,
                ),
            }
            assert float(state.score[row]) == pytest.approx(expected[metric], rel=1e-4)


def test_a_slice_without_signal_is_told() -> None:
    data = slices()
    kspace = data.kspace.clone()
    for value in (0, torch.nan):
        kspace[2] = value
        with pytest.raises(UserError, match="slice 2 has no signal, or is not finite"):
            process(KspaceSet(kspace, kspace, data.volume, data.coil_scale))


@pytest.mark.parametrize(("units", "n"), [("lines", 13), ("points", 156), ("tile", 12)])
def test_units_cut_up_the_plane(units: str, n: int) -> None:
    chosen = Units.of(SHAPE, units, (3, 4))  # type: ignore[arg-type]
    assert chosen.n == n
    assert sorted(chosen.plane.unique().tolist()) == list(range(n))
    all_masks = chosen.mask(torch.eye(n, dtype=torch.bool))
    assert (all_masks.sum(0) == 1).all()
    dc = int(chosen.plane[SHAPE[0] // 2, SHAPE[1] // 2])
    assert chosen.nearest(1).nonzero().tolist() == [[dc]]


@pytest.mark.parametrize("units", ["lines", "points", "tile"])
def test_every_scan_spends_the_budget_on_new_units(units: str) -> None:
    scan = process(units=units, n_initial=3, budget=5)
    for policy in (RandomPolicy(0), low_to_high(scan.units.distance), OraclePolicy(scan)):
        done = roll_out(scan, policy, batch_size=2)
        assert done.scores.shape == (5, 6)
        initial = scan.initial.nonzero().flatten().tolist()
        for row in done.actions.tolist():
            assert len({*row, *initial}) == 8


def test_short_batches_and_single_slices_change_nothing() -> None:
    scan = process()
    policy = low_to_high(scan.units.distance)
    whole = roll_out(scan, policy, batch_size=64)
    for batch_size in (1, 2, 3):
        parts = roll_out(scan, policy, batch_size)
        assert torch.equal(parts.actions, whole.actions)
        assert torch.allclose(parts.scores, whole.scores, rtol=1e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_rewards_are_what_the_score_gained_and_acquiring_all_is_best(metric: str) -> None:
    scan = process(n_initial=3, budget=9, metric=metric)
    state = scan.start(torch.arange(5))
    first, total = state.score, torch.zeros(5, dtype=torch.float64)
    while not scan.is_done(state):
        state, reward = scan.step(state, choose(RandomPolicy(3), state))
        total += reward
    assert torch.allclose(total, scan.sign * (state.score - first))
    assert (total > 0).all()


def test_trying_is_not_taking() -> None:
    env = AcquisitionVectorEnv({"train": process()}, 3)
    before, _ = env.reset(seed=0)
    _, gain = env.try_action(torch.tensor([0, 0, 1]))
    assert torch.equal(env.state.acquired.to(torch.int8), before["mask"])
    _, reward, *_ = env.step(torch.tensor([0, 0, 1]))
    assert torch.equal(gain, reward)


def test_orders_go_outwards_or_across() -> None:
    scan = process(n_initial=1, budget=12)
    assert roll_out(scan, low_to_high(scan.units.distance)).actions[0].tolist() == [
        5, 7, 4, 8, 3, 9, 2, 10, 1, 11, 0, 12,
    ]  # fmt: skip
    across = roll_out(scan, one_side_first(13)).actions[0].tolist()
    assert across == [unit for unit in range(13) if unit != 6]
    assert roll_out(scan, OrderPolicy([9, 2])).actions[0].tolist()[:4] == [9, 2, 0, 1]


def test_low_frequencies_are_drawn_more_often() -> None:
    scan = process(n_initial=1, budget=3)
    policy = LowFrequencyRandomPolicy(scan.units.distance, 0)
    drawn = torch.cat([roll_out(scan, policy).actions.flatten() for _ in range(60)])
    assert float((scan.units.distance[drawn] < 0.5).double().mean()) > 0.7
    assert len(drawn.unique()) > 8


@pytest.mark.parametrize("metric", ["mse", "psnr"])
def test_the_oracle_is_the_best_of_all_actions_tried(metric: str) -> None:
    scan = process(metric=metric)
    state = scan.start(torch.arange(5))
    best = choose(OraclePolicy(scan), state)
    gains = torch.full(state.acquired.shape, -torch.inf, dtype=torch.float64)
    for row, unit in (~state.acquired).nonzero().tolist():
        one = scan.start(state.index[row : row + 1])
        gains[row, unit] = scan.step(one, torch.tensor([unit]))[1]
    assert best.tolist() == gains.argmax(1).tolist()


@pytest.mark.parametrize("metric", ["mse", "psnr"])
def test_no_other_first_line_helps_the_training_slices_more_than_the_learned_one(
    metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = process(budget=2, metric=metric)
    whole = greedy_order(scan, n_slices=5, seed=0)
    monkeypatch.setattr("kscout.acquisition.process.MOST_AT_ONCE", 800)  # two slices at once
    assert scan.at_once == 2
    assert greedy_order(scan, n_slices=5, seed=0) == whole
    order = greedy_order(scan, n_slices=5, seed=0).order
    free = (~scan.initial).nonzero().flatten().tolist()
    gains = {}
    for unit in free:
        state = scan.start(torch.arange(5))
        gains[unit] = float(scan.step(state, torch.full((5,), unit))[1].mean())
    assert order[0] == max(gains, key=lambda unit: gains[unit])
    assert len(order) == 2


def test_the_same_seed_gives_the_same_slices_and_training_goes_through_all() -> None:
    env = AcquisitionVectorEnv({"train": process(), "test": process()}, 2)
    for seed in (0, 1):
        first = [env.reset(seed=seed)[1]["index"].tolist()] + [
            env.reset()[1]["index"].tolist() for _ in range(9)
        ]
        again = [env.reset(seed=seed)[1]["index"].tolist()] + [
            env.reset()[1]["index"].tolist() for _ in range(9)
        ]
        assert first == again
        flat = list(chain(*first))
        assert all(sorted(flat[i : i + 5]) == list(range(5)) for i in range(0, 20, 5))
    env.use("test")
    seen = [env.reset()[1]["index"].tolist() for _ in range(3)]
    assert list(chain(*seen)) == [0, 1, 2, 3, 4, 0]


def test_final_rewards_come_at_the_end_alone() -> None:
    env = AcquisitionVectorEnv({"train": process(budget=3)}, 2, "final")
    env.reset(seed=0)
    rewards = []
    for _ in range(3):
        _, reward, ended, truncated, info = env.step(choose(RandomPolicy(0), env.state))
        rewards.append(reward)
    assert (torch.stack(rewards[:2]) == 0).all()
    assert torch.equal(rewards[2], -info["score"])
    assert ended.all()
    assert not truncated.any()


def refused(call, *said: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError) as error:
        call()
    assert "\n" not in str(error.value)
    for words in said:
        assert words in str(error.value)


def test_what_is_wrong_is_said_with_what_is_valid() -> None:
    scan = process(budget=1)
    state = scan.start(torch.arange(2))

    def step(*action: int) -> Tensor:
        return scan.step(state, torch.tensor(action))[0].score

    refused(lambda: step(3, 13), "action 13", "0 to 12")
    refused(lambda: step(-1, 3), "action -1", "0 to 12")
    refused(lambda: step(3, 6), "action 6 of slice 1", "taken", "0, 1, 2")
    refused(lambda: step(3), "one whole number for each of 2")
    refused(lambda: scan.step(state, torch.tensor([0.0, 1.0])), "float32", "whole number")
    over, _ = scan.step(state, torch.tensor([0, 0]))
    refused(lambda: scan.step(over, torch.tensor([1, 1])), "budget of 1 is spent", "anew")
    refused(lambda: process(budget=12), "budget 12", "1 to 11")
    refused(lambda: process(slices().select(slice(0, 0))), "without slices")
    units = Units.of((8, 9))
    net = RECONSTRUCTORS["zero_filled"](2, 0)
    refused(lambda: Process(slices(), net, units=units, n_initial=1, budget=1), "8x9", "12x13")
    refused(lambda: Units.of(SHAPE, "tile", (13, 2)), "13x2", "12x13")
    env = AcquisitionVectorEnv({"train": scan}, 2)
    refused(lambda: env.step(torch.tensor([0, 1])), "reset first")
    refused(lambda: env.use("val"), "'val'", "train")
    refused(lambda: AcquisitionVectorEnv({"train": scan}, 0), "num_envs 0")
    refused(lambda: roll_out(scan, OrderPolicy([0, 0])), "once")
    refused(lambda: initial_lines("odd", 20), "normal, extreme")


@pytest.mark.parametrize(("scenario", "n"), [("normal", 30), ("extreme", 2)])
def test_scenarios_scale_with_the_matrix(scenario: str, n: int) -> None:
    assert initial_lines(scenario, 332) == n
    assert initial_lines(scenario, 28) == max(2, round(n * 28 / 332))


class Wrong:
    """A policy with a mistake."""

    def __init__(self, preferences: Tensor) -> None:
        self.wrong = preferences

    def preferences(self, state: State) -> Tensor:
        return self.wrong


def test_preferences_of_another_shape_or_none_are_told() -> None:
    scan = process()
    with pytest.raises(UserError, match=r"Wrong has preferences of shape \(3,\): valid is \(5, 13"):
        roll_out(scan, Wrong(torch.zeros(3)))
    nan = torch.full((5, 13), torch.nan)
    with pytest.raises(UserError, match="Wrong has preferences that are NaN"):
        roll_out(scan, Wrong(nan))
    nan[:, 2:6] = 1  # of units that were acquired nobody asks
    scan = process(budget=1)
    nan[~scan.initial.expand(5, -1)] = 0
    assert roll_out(scan, Wrong(nan)).actions[0].tolist() == [0]
