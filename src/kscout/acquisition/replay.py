"""What was done and seen, kept small."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor
from torchrl import torchrl_logger
from torchrl.data import LazyTensorStorage, ReplayBuffer

from kscout.acquisition.network import View

torchrl_logger.setLevel("WARNING")  # it tells of every buffer that it makes


@dataclass(frozen=True)
class Transitions:
    """One action each of some slices.

    Attributes
    ----------
    slices : int64 ``(batch,)``, their places in their set
    before, after : what the network saw
    action : int64 ``(batch,)``
    reward : float32 ``(batch,)``
    done : bool ``(batch,)``, whether the budget was spent by it
    """

    slices: Tensor
    before: View
    action: Tensor
    reward: Tensor
    after: View
    done: Tensor


class Replay:
    """A replay buffer of transitions: views in half precision, masks as bits.

    Parameters
    ----------
    capacity : transitions, of which the oldest are forgotten
    n_units : of a slice
    seed : of what is drawn
    """

    def __init__(self, capacity: int, n_units: int, seed: int) -> None:
        self.n_units = n_units
        self.generator = torch.Generator().manual_seed(seed)
        self.buffer = ReplayBuffer(storage=LazyTensorStorage(capacity))
        self.buffer.set_rng(self.generator)

    def __len__(self) -> int:
        return len(self.buffer)

    def add(self, new: Transitions) -> None:
        fields = {
            "slices": new.slices.int(),
            "action": new.action.int(),
            "reward": new.reward.float(),
            "done": new.done,
            **_packed("before", new.before),
            **_packed("after", new.after),
        }
        n = len(new.slices)
        self.buffer.extend(TensorDict({k: v.cpu() for k, v in fields.items()}, batch_size=n))

    def draw(self, n: int, device: torch.device) -> Transitions:
        """With replacement."""
        found = self.buffer.sample(n).to(device)
        return Transitions(
            found["slices"].long(),
            self._unpacked("before", found),
            found["action"].long(),
            found["reward"],
            self._unpacked("after", found),
            found["done"],
        )

    def _unpacked(self, name: str, found: TensorDict) -> View:
        bits = found[f"{name}_acquired"]
        acquired = np.unpackbits(bits.cpu().numpy(), axis=1, count=self.n_units)
        return View(
            torch.from_numpy(acquired).bool().to(bits.device),
            found[f"{name}_energy"].float(),
            found[f"{name}_image"].float(),
        )

    @property
    def n_bytes(self) -> int:
        """Of what is kept."""
        kept = self.buffer[:].values() if len(self) else []
        return sum(x.element_size() * x.nelement() for x in kept)

    def state_dict(self) -> dict[str, Any]:
        """What is remembered, where the next will be kept, and where the drawing is."""
        kept = dict(self.buffer[:].items()) if len(self) else {}
        writer = self.buffer.writer.state_dict()
        return {"kept": kept, "writer": writer, "drawing": self.generator.get_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.buffer.empty()
        if kept := state_dict["kept"]:
            self.buffer.extend(TensorDict(kept, batch_size=len(kept["action"])))
        self.buffer.writer.load_state_dict(state_dict["writer"])
        self.generator.set_state(state_dict["drawing"].cpu())


def _packed(name: str, view: View) -> dict[str, Tensor]:
    bits = np.packbits(view.acquired.cpu().numpy(), axis=1)
    return {
        f"{name}_acquired": torch.from_numpy(bits),
        f"{name}_energy": view.energy.half(),
        f"{name}_image": view.image.half(),
    }
