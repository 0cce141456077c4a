"""Small synthetic run folders."""

import json
from pathlib import Path
from typing import Any

import numpy as np

SHAPE = (13, 18)


def write_run(
    path: Path,
    name: str,
    nmse: float,
    *,
    learned: bool = False,
    n_samples: int = 60,
    **changes: Any,
) -> Path:
    """A finished run folder whose numbers follow from ``nmse``."""
    rng = np.random.default_rng(sum(name.encode()))
    path.mkdir(parents=True)
    masks = np.zeros((4 if learned else 1, SHAPE[0] * SHAPE[1]), dtype=bool)
    for mask in masks:
        mask[rng.permutation(mask.size)[:n_samples]] = True
    masks = masks.reshape(-1, *SHAPE)
    y, x = np.ogrid[-1 : 1 : SHAPE[0] * 1j, -1 : 1 : SHAPE[1] * 1j]
    reference = np.stack([(x**2 + y**2 < 0.7) * (1 + scale * x * y) for scale in (0.5, 0.9)])
    noise = rng.normal(size=reference.shape) * nmse**0.5

    def interval(value: float) -> dict[str, float]:
        return {"mean": value, "low": 0.9 * value, "high": 1.1 * value}

    decibel = -10 * float(np.log10(nmse))
    scores = {
        "nmse_kspace": interval(nmse), "nmse": interval(nmse), "psnr": interval(decibel),
        "ssim": interval(1 - nmse), "nmse_foreground": interval(nmse),
        "psnr_foreground": interval(decibel - 3), "ssim_foreground": interval(1 - 2 * nmse),
    }  # fmt: skip
    results = {
        "name": name, "sampler": {"kind": name}, "reconstructor": {"kind": "spirit_net"},
        "learned": learned, "shape": SHAPE, "n_samples": n_samples, "n_acs": 0,
        "acceleration": SHAPE[0] * SHAPE[1] / n_samples, "seconds": 12.34,
        "n_points_changed": 7 if learned else None, "voxel_size": [2.0, 1.0], "quarter_turns": 1,
        "summary": {"test": {**scores, "n_slices": 8, "n_volumes": 2}}, **changes,
    }  # fmt: skip
    status = {"state": "finished", "started": "", "ended": "", "error": None}
    (path / "status.json").write_text(json.dumps(status))
    (path / "results.json").write_text(json.dumps(results))
    (path / "config.yaml").write_text("data:\n  kind: brain\n  note: '<b>&'\n")
    np.save(path / "mask.npy", masks[-1])
    np.savez(
        path / "examples.npz",
        reference=reference.astype(np.float32),
        reconstruction=(reference + noise).astype(np.float32),
        zero_filled=(reference + 3 * noise).astype(np.float32),
        volume=np.array([3, 3]),
        slice=np.array([0, 5]),
    )
    if learned:
        np.save(path / "mask_history.npy", masks)
        log = ["epoch,train_loss,val_loss,n_points_changed"]
        log += [f"{epoch},{0.1 / (epoch + 1)},{0.2 / (epoch + 1)},4" for epoch in range(3)]
        (path / "metrics.csv").write_text("\n".join(log))
    return path


def edit(path: Path, key: str, value: object) -> None:
    results = json.loads((path / "results.json").read_text())
    (path / "results.json").write_text(json.dumps(results | {key: value}))
