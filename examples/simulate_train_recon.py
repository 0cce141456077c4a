"""From nothing to a reconstructed volume: simulate scans to files, train, reconstruct one of them.

    python examples/simulate_train_recon.py [FOLDER]

Two brains train, a third one, of another shape and contrast, tests; the coils are the same. Small
enough for a laptop's processor, and offline. Everything lands in FOLDER, or in a new temporary one.
"""

import shlex
import sys
import tempfile
from pathlib import Path

from kscout.cli import app

CONFIG = Path(__file__).parent.parent / "configs" / "files.yaml"


def kscout(*words: object) -> None:
    """Run a command as it would be typed, and show it."""
    typed = [str(word) for word in words]
    print(f"\n$ kscout {shlex.join(typed)}", flush=True)
    app(typed, standalone_mode=False)


def main(folder: Path) -> None:
    scans, run = folder / "scans", folder / "run"
    kscout(
        *("data", "simulate", "brain", "n_train=2", "n_val=0", "n_test=1"),
        *("slices=[68,72]", "snr_db=30", "--out", scans),
    )
    kscout(
        *("train", CONFIG, f"data.train=[{scans / 'train'}]", f"data.test=[{scans / 'test'}]"),
        *("name=caipirinha", "budget.acs_size=16", "reconstructor.n_blocks=4"),
        *("training.closed_form.n_equations=40000", "--out", run),
    )
    scan = scans / "test" / "volume_002.h5"
    kscout("recon", scan, "--method", run, "--out", folder / "reconstructed.nii.gz")
    kscout("data", "show", folder / "reconstructed.nii.gz", "--out", folder / "reconstructed.png")
    kscout("mask", "show", run / "mask.npy", "--out", folder / "mask.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="kscout-")))
