"""The environments as gymnasium sees them."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from kscout.acquisition.env import AcquisitionEnv, AcquisitionVectorEnv
from kscout.acquisition.process import Units
from kscout.errors import UserError
from scans import process

DIGITS = "kscout.acquisition:kscout/Digits-v0"
SMALL = {"data": {"n_train": 12, "n_val": 3, "n_test": 5}, "budget": 3}


def splits() -> dict[str, object]:
    return {"train": process(12, budget=3), "test": process(5, seed=3, budget=3)}


def test_gymnasium_makes_it_by_its_name_and_finds_nothing_wrong() -> None:
    env = gymnasium.make(DIGITS, render_mode="rgb_array", **SMALL)
    check_env(env.unwrapped)
    _, info = env.reset(seed=0)
    ended, n_steps = False, 0
    while not ended:
        action = env.action_space.sample(info["action_mask"])
        assert info["action_mask"][action] == 1
        _, gain = env.unwrapped.try_action(action)
        _, reward, ended, cut, info = env.step(action)
        assert reward == pytest.approx(gain)
        assert not cut
        n_steps += 1
    assert n_steps == 3
    assert info["action_mask"].sum() == 28 - 2 - 3
    assert env.render().shape == (28, 84, 3)


def test_a_seed_says_which_slices_come_and_a_split_is_gone_through_once() -> None:
    env = AcquisitionEnv(splits())  # type: ignore[arg-type]
    seen = {}
    for seed in (0, 1, 0):
        found = [env.reset(seed=seed)[1]["index"]]
        found += [env.reset()[1]["index"] for _ in range(11)]
        assert sorted(found) == list(range(12))
        assert seen.setdefault(seed, found) == found
    assert seen[0] != seen[1]
    test = [env.reset(options={"split": "test"})[1]["index"]]
    test += [env.reset()[1]["index"] for _ in range(4)]
    assert test == list(range(5))


def test_a_batch_is_as_many_single_ones() -> None:
    batch = gymnasium.make_vec(DIGITS, 3, vectorization_mode="vector_entry_point", **SMALL)
    assert isinstance(batch, AcquisitionVectorEnv)
    _, info = batch.reset(options={"split": "test"})
    assert info["index"].tolist() == [0, 1, 2]
    single = gymnasium.make(DIGITS, split="test", **SMALL)
    rewards, ends = [], []
    for unit in (3, 20, 8):
        _, reward, ended, cut, info = batch.step(torch.full((3,), unit))
        rewards.append(reward)
        ends.append(ended.tolist())
        assert not cut.any()
    assert ends == [[False] * 3, [False] * 3, [True] * 3]
    for i in range(3):
        single.reset()
        alone = [single.step(unit)[1] for unit in (3, 20, 8)]
        np.testing.assert_allclose(alone, [float(r[i]) for r in rewards], rtol=1e-4, atol=1e-7)


def test_the_final_score_alone() -> None:
    env = AcquisitionVectorEnv(splits(), 4, reward="final")  # type: ignore[arg-type]
    env.reset(seed=0)
    rewards = [env.step(torch.full((4,), unit))[1] for unit in (0, 1, 2)]
    assert not torch.stack(rewards[:2]).any()
    torch.testing.assert_close(rewards[2], -env.state.score)


def test_what_is_refused() -> None:
    made = splits()
    env = AcquisitionVectorEnv(made, 2)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="nothing has been begun"):
        env.step(torch.tensor([0, 0]))
    with pytest.raises(UserError, match=r"\['scan'\] are not known: valid is split"):
        env.reset(options={"scan": 1})
    with pytest.raises(UserError, match="split 'val' is not there: valid is train, test"):
        env.reset(options={"split": "val"})
    with pytest.raises(UserError, match="valid is one for the whole batch"):
        env.reset(seed=[1, 2])
    env.reset(seed=np.int64(3))
    with pytest.raises(UserError, match="reward 'finall' is not known: valid is gain, final"):
        AcquisitionVectorEnv(made, 2, reward="finall")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="num_envs 0 is impossible"):
        AcquisitionVectorEnv(made, 0)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="units 'columns' are not known: valid is lines"):
        Units.of((5, 5), "columns")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="metric 'foo' is not known: valid is nmse"):
        process(metric="foo")


def test_a_scan_may_begin_with_nothing() -> None:
    assert not Units.of((5, 7)).nearest(0).any()
