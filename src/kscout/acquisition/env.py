"""Acquisition as gymnasium environments: one slice at a time, or a batch of them on tensors."""

from numbers import Integral
from typing import Any, Literal, get_args

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from kscout.acquisition.process import Process, State
from kscout.errors import UserError

Reward = Literal["gain", "final"]
Split = Literal["train", "val", "test"]
Info = dict[str, Any]

SCENARIOS = {"normal": 30 / 332, "extreme": 2 / 332}
"""Initial lines over all: 30 or 2 of 332 (Pineda et al. 2020, arXiv:2007.10469)."""


def initial_lines(scenario: str, n_lines: int) -> int:
    """How many lines a scenario begins with on another matrix; two at least."""
    if scenario not in SCENARIOS:
        raise UserError(f"scenario '{scenario}' is not known: valid is {', '.join(SCENARIOS)}")
    return max(2, round(SCENARIOS[scenario] * n_lines))


class FreeUnits(spaces.Discrete):
    """The units of a plane; what is sampled without a mask is one that can still be acquired."""

    def __init__(self, free: NDArray[np.int8]) -> None:
        super().__init__(len(free))
        self.free = free

    def sample(self, mask: Any = None, probability: Any = None) -> np.int64:
        if mask is None and probability is None:
            mask = self.free
        return super().sample(mask, probability)


class FreeUnitsOfAll(spaces.MultiDiscrete):
    """The same for a batch of slices: ``(env,)`` units."""

    def __init__(self, free: NDArray[np.int8]) -> None:
        super().__init__([free.shape[1]] * len(free))
        self.free = free

    def sample(self, mask: Any = None, probability: Any = None) -> NDArray[Any]:
        if probability is None:
            mask = tuple(np.asarray(self.free if mask is None else mask, dtype=np.int8))
        return super().sample(mask, probability)


class _Order:
    """Which slices come next: at random in training, each once before any comes twice elsewhere."""

    def __init__(self, n_slices: int, is_shuffled: bool) -> None:
        self.n_slices, self.is_shuffled = n_slices, is_shuffled
        self.generator = torch.Generator()
        self.generator.seed()  # as gymnasium asks: without a seed no two begin alike
        self._left: list[int] = []

    def seed(self, seed: int) -> None:
        self.generator.manual_seed(seed)
        self._left = []

    def next(self, n: int) -> Tensor:
        while len(self._left) < n:
            self._left += (
                torch.randperm(self.n_slices, generator=self.generator).tolist()
                if self.is_shuffled
                else list(range(self.n_slices))
            )
        taken, self._left = self._left[:n], self._left[n:]
        return torch.tensor(taken)


class AcquisitionVectorEnv(VectorEnv[dict[str, Tensor], Tensor, Tensor]):
    """Several slices acquired at once; observations, rewards and actions are tensors.

    All episodes of a batch begin and end together, so that there is nothing to reset one by one.

    Action
        int64 ``(env,)``, units that were not acquired (``info["action_mask"]``)
    Observation
        ``image``, float32 ``(env, y, x)``, the magnitude of the reconstruction; ``mask``, int8
        ``(env, unit)``, what was acquired
    Reward
        float64 ``(env,)``: by how much the metric got better (``gain``), or nothing until the end
        and then the metric, negative where less is better (``final``)
    Episode end
        ``terminated`` once the budget is spent; never ``truncated``

    Parameters
    ----------
    processes : of each split
    num_envs : slices at a time
    reward : as above
    split : that episodes are of, until :meth:`use`
    """

    metadata: Info = {"autoreset_mode": AutoresetMode.DISABLED, "render_modes": []}  # noqa: RUF012 (as gymnasium declares it)

    def __init__(
        self,
        processes: dict[str, Process],
        num_envs: int,
        reward: Reward = "gain",
        split: Split = "train",
    ) -> None:
        if num_envs < 1:
            raise UserError(f"num_envs {num_envs} is impossible: valid is 1 or more")
        if reward not in get_args(Reward):
            raise UserError(
                f"reward '{reward}' is not known: valid is {', '.join(get_args(Reward))}"
            )
        self.processes, self.num_envs, self.reward = processes, num_envs, reward
        self.orders = {
            name: _Order(len(process.data), name == "train") for name, process in processes.items()
        }
        self.use(split)
        image, n_units = self.process.data.shape, self.process.units.n
        self.single_observation_space = spaces.Dict(
            {
                "image": spaces.Box(0, np.finfo(np.float32).max, image),
                "mask": spaces.MultiBinary(n_units),
            }
        )
        free = (~self.process.initial).cpu().numpy().astype(np.int8)
        self.single_action_space: FreeUnits = FreeUnits(free)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space: FreeUnitsOfAll = FreeUnitsOfAll(np.repeat(free[None], num_envs, 0))

    def use(self, split: Split) -> None:
        """Go over to another split; begin it with :meth:`reset`."""
        if split not in self.processes:
            raise UserError(f"split '{split}' is not there: valid is {', '.join(self.processes)}")
        self.split = split
        self._state: State | None = None

    @property
    def process(self) -> Process:
        return self.processes[self.split]

    @property
    def state(self) -> State:
        if self._state is None:
            raise UserError("nothing has been begun: valid is to call reset first")
        return self._state

    def reset(
        self, *, seed: Any = None, options: Info | None = None
    ) -> tuple[dict[str, Tensor], Info]:
        """Begin the next slices; with a seed, those that it says.

        ``options={"split": name}`` goes over to another split first. A ``reset_mask``, which
        gymnasium's wrappers give, must be of all: episodes of a batch begin together.
        """
        options = options or {}
        if set(options) - {"split", "reset_mask"}:
            raise UserError(f"options {sorted(options)} are not known: valid is split")
        if not np.all(options.get("reset_mask", True)):
            raise UserError("a reset_mask of some episodes: valid is all, as they end together")
        if "split" in options:
            self.use(options["split"])
        if seed is not None:
            if not isinstance(seed, Integral):
                raise UserError(f"seed {seed} is no number: valid is one for the whole batch")
            for order in self.orders.values():
                order.seed(int(seed))
        self._state = self.process.start(self.orders[self.split].next(self.num_envs))
        return self._observed()

    def step(self, actions: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor, Info]:
        state, reward = self.process.step(self.state, actions)
        self._state = state
        done = self.process.is_done(state)
        if self.reward == "final":
            reward = self.process.sign * state.score if done else torch.zeros_like(reward)
        ended = torch.full((self.num_envs,), done, device=reward.device)
        observation, info = self._observed()
        return observation, reward, ended, torch.zeros_like(ended), info

    def try_action(self, actions: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """What an action would show and gain; nothing is acquired."""
        state, gain = self.process.step(self.state, actions)
        return _seen(state), gain

    def _observed(self) -> tuple[dict[str, Tensor], Info]:
        state = self.state
        free = (~state.acquired).to(torch.int8)
        self.action_space.free = free.cpu().numpy().copy()
        info = {
            "action_mask": free,
            "score": state.score,
            "index": state.index,
        }
        return _seen(state), info


def _seen(state: State) -> dict[str, Tensor]:
    return {"image": state.image, "mask": state.acquired.to(torch.int8)}


class AcquisitionEnv(gymnasium.Env[dict[str, NDArray[Any]], np.int64]):
    """One slice at a time: the :class:`AcquisitionVectorEnv` of one, in NumPy arrays.

    Parameters
    ----------
    processes : of each split
    reward, split : as there
    render_mode : ``rgb_array``, a picture of mask, image and error
    """

    metadata: Info = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012 (as gymnasium declares it)

    def __init__(
        self,
        processes: dict[str, Process],
        reward: Reward = "gain",
        split: Split = "train",
        render_mode: str | None = None,
    ) -> None:
        self.batch = AcquisitionVectorEnv(processes, 1, reward, split)
        self.observation_space = self.batch.single_observation_space
        self.free = self.batch.single_action_space
        self.action_space = self.free
        self.render_mode = render_mode

    @property
    def process(self) -> Process:
        """Of the split that episodes are of."""
        return self.batch.process

    def reset(
        self, *, seed: int | None = None, options: Info | None = None
    ) -> tuple[dict[str, NDArray[Any]], Info]:
        super().reset(seed=seed)
        return self._numpy(*self.batch.reset(seed=seed, options=options))

    def step(self, action: np.int64) -> tuple[dict[str, NDArray[Any]], float, bool, bool, Info]:
        seen, reward, ended, _, info = self.batch.step(torch.as_tensor(np.asarray([action])))
        observation, info = self._numpy(seen, info)
        return observation, float(reward), bool(ended), False, info

    def try_action(self, action: int) -> tuple[dict[str, NDArray[Any]], float]:
        """What an action would show and gain; nothing is acquired."""
        seen, gain = self.batch.try_action(torch.as_tensor(np.asarray([action])))
        return {name: value[0].cpu().numpy() for name, value in seen.items()}, float(gain)

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """Mask, reconstruction and error side by side, upright, uint8 ``(y, 3 x, 3)``."""
        if self.render_mode is None:
            return None
        process, state = self.batch.process, self.batch.state
        reference = process.data.image(process.data.target[state.index])[0].cpu()
        peak = float(reference.max()) or 1.0
        mask = process.units.mask(state.acquired)[0, 0].cpu()
        image = state.image[0].cpu() / peak
        error = 5 * (image - reference / peak).abs()
        turns = process.data.quarter_turns
        row = torch.cat([part.rot90(turns) for part in (mask, image, error)], 1).clamp(0, 1)
        return (255 * row).round().to(torch.uint8)[..., None].expand(-1, -1, 3).numpy()

    def _numpy(self, seen: dict[str, Tensor], info: Info) -> tuple[dict[str, NDArray[Any]], Info]:
        free = info["action_mask"][0].cpu().numpy()
        self.free.free = self.batch.action_space.free[0]
        shown = {name: value[0].cpu().numpy() for name, value in seen.items()}
        return shown, {
            "action_mask": free,
            "score": float(info["score"]),
            "index": int(info["index"]),
        }
