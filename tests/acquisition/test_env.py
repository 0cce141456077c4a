"""The environments as gymnasium sees them."""

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers.vector import ArrayConversion, RecordEpisodeStatistics

from kscout.acquisition.env import AcquisitionEnv, AcquisitionVectorEnv
from kscout.errors import UserError
from kscout.experiment.acquire import make, make_vector
from kscout.sampling.units import Units
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
    assert env.unwrapped.process.budget == 3


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


def test_a_batch_samples_units_that_are_left() -> None:
    env = AcquisitionVectorEnv(splits(), 4)  # type: ignore[arg-type]
    env.action_space.seed(0)
    for masked in (False, True):
        _, info = env.reset(seed=1, options={"reset_mask": np.ones(4, bool)})
        for _ in range(3):
            mask = info["action_mask"] if masked else None
            action = torch.as_tensor(env.action_space.sample(mask))
            assert info["action_mask"].gather(1, action[:, None]).all()
            *_, info = env.step(action)
    info["action_mask"].fill_(1)  # a caller's change is no change of the space
    assert (env.action_space.free == 0).any()
    with pytest.raises(UserError, match="a reset_mask of some episodes: valid is all"):
        env.reset(options={"reset_mask": np.array([True, False, True, True])})


def test_without_a_seed_no_two_begin_alike() -> None:
    data = {"train": process(48, budget=3)}
    first = [tuple(AcquisitionVectorEnv(data, 6).reset()[1]["index"].tolist()) for _ in range(5)]
    assert len(set(first)) > 1


def test_wrappers_of_arrays_work_on_a_batch() -> None:
    made = AcquisitionVectorEnv(splits(), 4)  # type: ignore[arg-type]
    env = RecordEpisodeStatistics(ArrayConversion(made, env_xp=torch, target_xp=np))
    env.reset(seed=0)
    total = np.zeros(4)
    for unit in (0, 1, 2):
        _, reward, _, _, info = env.step(np.full(4, unit))
        total += reward
    np.testing.assert_allclose(info["episode"]["r"], total, rtol=1e-5)


def test_half_a_unit_is_refused() -> None:
    env = AcquisitionEnv(splits())  # type: ignore[arg-type]
    env.reset(seed=0)
    with pytest.raises(UserError, match="valid is one whole number"):
        env.step(2.7)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="a batch draws no pictures"):
        make_vector("digits", 2, render_mode="rgb_array")  # type: ignore[arg-type]


def test_the_picture_is_of_mask_image_and_error() -> None:
    scan = process(5, budget=3)
    env = AcquisitionEnv({"train": scan}, render_mode="rgb_array")
    _, info = env.reset(seed=0)
    env.step(np.int64(0))
    picture = env.render()
    assert picture is not None
    state = env.batch.state
    reference = scan.data.image(scan.data.target[info["index"]][None])[0]
    image = (state.image[0] / reference.max()).clamp(0, 1)
    error = (5 * (image - reference / reference.max()).abs()).clamp(0, 1)
    mask = scan.units.mask(state.acquired)[0, 0]
    expected = torch.cat([mask, image, error], 1) * 255
    assert np.abs(picture[..., 0] - expected.numpy()).max() <= 1.5
    assert error.max() > 0.1
    scan.data = replace(scan.data, quarter_turns=1)
    upright = [np.rot90(part) for part in np.split(picture, 3, axis=1)]
    assert np.array_equal(env.render(), np.concatenate(upright, axis=1))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"data": {"n_trian": 3}}, "data: unknown key n_trian: valid here are path, n_train"),
        ({"budget": 2.5}, "budget is 2.5: valid is a whole number"),
        ({"n_initial": "2"}, "n_initial is '2': valid is a whole number"),
        ({"tile": (4, 4)}, "tile is for units='tile'"),
        ({"units": "tile", "tile": (4,)}, r"tile is \(4,\): valid are two whole numbers"),
        ({"foo": 1}, "foo is not known: valid is data, reward, split, units"),
        ({"reconstructor": {"kind": "unet"}}, "valid is one of kscout.recon that was made"),
        ({"n_initial": 40, "data": {"n_train": 3, "n_test": 1}}, "n_initial 40 of 28 units: valid"),
    ],
)
def test_wrong_options_are_told(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make("digits", **options)
