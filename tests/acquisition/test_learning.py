"""Policies that learn: they learn what no order knows, alike every time, and go on when stopped."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch

from kscout.acquisition.ddqn import Ddqn
from kscout.acquisition.evaluator import Evaluator
from kscout.acquisition.gradient import PolicyGradient
from kscout.acquisition.learner import Learner, explore, fit
from kscout.acquisition.memory import Memory, Transitions
from kscout.acquisition.network import LARGEST, UnitNetwork, View
from kscout.acquisition.policies import OraclePolicy, choose, greedy_order
from kscout.acquisition.process import Process, Units
from kscout.acquisition.rollout import roll_out
from kscout.errors import Stopped, UserError
from laws import complex_normal
from scans import process

MAKE: dict[str, Callable[[Process], Learner]] = {
    "ddqn": lambda p: Ddqn(p, 0, n_drawn=32, exploring=0.6),
    "evaluator": lambda p: Evaluator(p, 0),
    "gradient": lambda p: PolicyGradient(p, 0, n_tries=4),
}
EPOCHS = {"ddqn": 25, "evaluator": 8, "gradient": 40}


@pytest.mark.parametrize("kind", MAKE)
def test_it_looks_at_the_slice_and_so_beats_every_order(kind: str, tmp_path: Path) -> None:
    train, test = process(), process(seed=9)
    learner = MAKE[kind](train)
    fit(learner, process(seed=5), tmp_path, epochs=EPOCHS[kind], batch_size=16, progress=False)
    own = roll_out(test, learner.policy).area.mean()
    order = roll_out(test, greedy_order(train, 48, 0)).area.mean()
    oracle = roll_out(test, OraclePolicy(test)).area.mean()
    assert oracle <= own < order - 0.6 * (order - oracle)


@pytest.mark.parametrize("kind", MAKE)
def test_a_seed_gives_one_curve_and_a_stop_changes_nothing(kind: str, tmp_path: Path) -> None:
    def curve(folder: Path, **options: object) -> tuple[list[object], dict[str, torch.Tensor]]:
        learner = MAKE[kind](process(20))
        history = fit(
            learner, process(7, seed=5), folder, epochs=4, batch_size=8, progress=False, **options
        )  # type: ignore[arg-type]
        rows = [[row[k] for k in ("train_loss", "return", "val_loss")] for row in history.rows]
        return rows, learner.network.state_dict()

    whole, weights = curve(tmp_path / "whole")
    again, _ = curve(tmp_path / "again")
    assert whole == again
    asked = count()
    with pytest.raises(Stopped):
        curve(tmp_path / "stopped", should_stop=lambda: next(asked) == 1)
    resumed, same = curve(tmp_path / "stopped")
    assert resumed == whole
    assert all(torch.equal(weights[name], same[name]) for name in weights)


def test_a_network_that_does_not_look_gives_one_order(tmp_path: Path) -> None:
    train = process()
    learner = Ddqn(train, 0, sees_slice=False, n_drawn=16)
    fit(learner, None, tmp_path, epochs=2, batch_size=16, progress=False)
    actions = roll_out(process(seed=3), learner.policy).actions
    assert (actions == actions[0]).all()


def transitions(n: int, n_units: int, size: int) -> Transitions:
    g = torch.Generator().manual_seed(n)

    def view() -> View:
        return View(
            torch.rand(n, n_units, generator=g) < 0.5,
            torch.rand(n, n_units, generator=g),
            torch.rand(n, 1, size, size, generator=g),
        )

    action = torch.randint(0, n_units, (n,), generator=g)
    reward, is_last = torch.rand(n, generator=g), torch.rand(n, generator=g) < 0.5
    return Transitions(torch.arange(n), view(), action, reward, view(), is_last)


def test_what_is_remembered_comes_back() -> None:
    kept, memory = transitions(13, 21, 5), Memory(40, 21, 0)
    memory.add(kept)
    drawn = memory.draw(200, torch.device("cpu"))
    assert set(drawn.slices.tolist()) == set(range(13))
    row = drawn.slices
    for before, after in ((drawn.before, kept.before), (drawn.after, kept.after)):
        assert torch.equal(before.acquired, after.acquired[row])
        torch.testing.assert_close(before.energy, after.energy[row], atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(before.image, after.image[row], atol=1e-3, rtol=1e-3)
    assert torch.equal(drawn.action, kept.action[row])
    assert torch.equal(drawn.reward, kept.reward[row])
    assert torch.equal(drawn.is_last, kept.is_last[row])


def test_the_oldest_are_forgotten_and_drawing_goes_on_where_it_was() -> None:
    memory = Memory(10, 21, 0)
    for first in range(0, 30, 6):
        new = transitions(6, 21, 4)
        memory.add(
            Transitions(
                new.slices + first, new.before, new.action, new.reward, new.after, new.is_last
            )
        )
    assert len(memory) == 10
    assert set(memory.draw(300, torch.device("cpu")).slices.tolist()) == set(range(20, 30))
    other = Memory(10, 21, 99)
    other.load_state_dict(memory.state_dict())
    for _ in range(4):  # goes on to be alike, where the oldest are overwritten too
        one, two = (m.draw(50, torch.device("cpu")).slices for m in (memory, other))
        assert torch.equal(one, two)
        for kept in (memory, other):
            kept.add(transitions(3, 21, 4))


def test_twenty_thousand_transitions_of_a_large_matrix_fit_into_a_gigabyte() -> None:
    memory = Memory(50, 320, 0)
    memory.add(transitions(50, 320, LARGEST))
    assert 20_000 * memory.n_bytes / 50 < 0.4e9


def test_a_view_is_on_a_scale_of_its_own_and_small() -> None:
    scan = process(budget=3)
    network = UnitNetwork(scan.units, 0)
    state = scan.start(torch.arange(5))
    seen = network.see(state)
    for factor in (1e-4, 3.0):
        scaled = replace(state, kspace=factor * state.kspace, image=factor * state.image)
        other = network.see(scaled)
        torch.testing.assert_close(other.energy, seen.energy, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(other.image, seen.image, atol=1e-3, rtol=1e-3)
    large = replace(state, image=torch.rand(5, 200, 90))
    assert network.see(large).image.shape == (5, 1, 64, 64)


@pytest.mark.parametrize("kind", ["lines", "points", "tile"])
def test_the_energy_of_units_is_the_mean_over_their_points(kind: str) -> None:
    units = Units.of((7, 10), kind, (3, 4))  # type: ignore[arg-type]
    network = UnitNetwork(units, 0)
    kspace = complex_normal((3, 2, 7, 10))
    found = network.mean_square(kspace)
    for unit in range(units.n):
        points = kspace[:, :, units.plane == unit].abs().square().sum(1)
        torch.testing.assert_close(found[:, unit], points.mean(1))


def test_area_rewards_add_up_to_the_area_won() -> None:
    scan = process(budget=5)
    learner = Evaluator(scan, 0)
    learner.reward = "area"
    state, total = scan.start(torch.arange(6)), torch.zeros(6)
    scores = [state.score]
    for action in (0, 1, 2, 5, 8):
        new, gain = scan.step(state, torch.full((6,), action))
        total += learner.rewards(state, gain)
        scores.append(new.score)
        state = new
    area = torch.trapezoid(torch.stack(scores), dim=0) / 5
    torch.testing.assert_close(total * learner.unit, (scores[0] - area).float())


def test_exploring_takes_free_units_only_and_as_often_as_told() -> None:
    scan = process(n=400)
    policy, state = MAKE["evaluator"](scan).policy, scan.start(torch.arange(400))
    own = choose(policy, state)
    for chance in (0.0, 0.4, 1.0):
        taken = explore(policy, state, chance, torch.Generator().manual_seed(1))
        assert not state.acquired.gather(1, taken[:, None]).any()
        differs = (taken != own).float().mean()
        assert abs(float(differs) - chance * 7 / 8) < 0.08


def test_an_action_is_credited_above_the_mean_of_the_other_tries_of_its_slice() -> None:
    learner = PolicyGradient(process(), 0, n_tries=4)
    index = torch.arange(6).repeat(4)  # as slices are laid out while they are acquired
    value = torch.rand(24)
    credit = learner._above_the_others(value)
    for i in range(24):
        others = [value[j] for j in range(24) if j != i and index[j] == index[i]]
        assert len(others) == 3
        torch.testing.assert_close(credit[i], value[i] - sum(others) / 3)


def test_the_target_of_double_q_learning_by_hand() -> None:
    """The network says which unit is next, its copy what that is worth; nothing after the last."""
    scan = process(n=6)
    learner = Ddqn(scan, 0, gamma=0.7)
    target = UnitNetwork(scan.units, 1)
    others = {f"module.0.module.{name}": w for name, w in target.state_dict().items()}
    for name, weights in learner.dqn.target_value_network_params.flatten_keys(".").items():
        if name in others:  # elsewhere are the units, which both know
            weights.data.copy_(others.pop(name))
    assert not others
    state = scan.start(torch.arange(6))
    action = torch.tensor([0, 1, 2, 5, 6, 7])
    new, _ = scan.step(state, action)
    before, after = learner.network.see(state), learner.network.see(new)
    is_last = torch.tensor([False, True] * 3)
    reward = torch.linspace(-1, 1, 6)
    with torch.no_grad():
        own = learner.network(*before).gather(1, action[:, None])[:, 0]
        best = learner.network(*after).masked_fill(new.acquired, -torch.inf).argmax(1)
        later = target(*after).gather(1, best[:, None])[:, 0]
    expected = torch.nn.functional.smooth_l1_loss(own, reward + 0.7 * later * ~is_last)
    kept = Transitions(torch.arange(6), before, action, reward, after, is_last)
    torch.testing.assert_close(learner.loss(kept).detach(), expected)


@pytest.mark.parametrize("kind", MAKE)
def test_a_loss_that_is_not_finite_is_told(kind: str, tmp_path: Path) -> None:
    learner = MAKE[kind](process())
    with torch.no_grad():
        next(learner.network.parameters()).fill_(torch.inf)
    with pytest.raises(UserError, match=r"not finite.*: use a lower learning rate"):
        fit(learner, None, tmp_path, epochs=1, progress=False)


def test_two_seeds_do_not_draw_the_same(tmp_path: Path) -> None:
    taken = []
    for seed in (0, 1):
        learner = Ddqn(process(), seed, n_drawn=8)
        fit(learner, None, tmp_path / str(seed), epochs=1, batch_size=48, progress=False)
        taken.append(learner.memory.buffer[:]["action"])
    assert not torch.equal(*taken)
