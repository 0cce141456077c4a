"""Real scans: fit on a brain of one scanner, test on a brain of another, and look at both.

    KSCOUT_TEST_DATA=FOLDER python examples/real_scans.py [OUT]

FOLDER/kspace holds brain_mprage_4ch_256x256.npy and brain_t2_4ch_256x256.npy: fully sampled,
complex64 (coil, ky, kx). Without them the example says so and ends. Results land in OUT, or in a
new temporary folder.
"""

import os
import shlex
import sys
import tempfile
from pathlib import Path

from kscout.cli import app

CONFIG = Path(__file__).parent.parent / "configs" / "files.yaml"
TRAIN, TEST = "brain_mprage_4ch_256x256.npy", "brain_t2_4ch_256x256.npy"

REMARK = """
The kernels fit the scan that they were fitted to, and fit the other scanner's badly: a SPIRiT
kernel says how neighbouring points of k-space are related by these coils around this field of view,
and does not carry over to other coils. Some masks suffer less than others; none is well served. Nor
is the first number a test: it is an error on the training slice itself. Fit and test within one
geometry, on scans of several people in the same coils: examples/simulate_train_recon.py does that
with simulated ones."""


def kscout(*words: object) -> None:
    """Run a command as it would be typed, and show it."""
    typed = [str(word) for word in words]
    print(f"\n$ kscout {shlex.join(typed)}", flush=True)
    app(typed, standalone_mode=False)


def main(scans: Path, out: Path) -> None:
    for name in (TRAIN, TEST):
        kscout("data", "show", scans / name, "--out", out / f"{name}.png")
    run = out / "run"
    kscout(
        *("train", CONFIG, f"data.train=[{scans / TRAIN}]", f"data.test=[{scans / TEST}]"),
        *("name=caipirinha", "reconstructor.n_blocks=4", "--out", run),
    )
    print("\nThe scan that the kernels were fitted to, then the one of the other scanner:")
    for name in (TRAIN, TEST):
        kscout("recon", scans / name, "--method", run, "--out", out / f"{name}_reconstructed.png")
    print(REMARK)


if __name__ == "__main__":
    folder = os.environ.get("KSCOUT_TEST_DATA")
    scans = Path(folder or "") / "kspace"
    if folder is None or not all((scans / name).is_file() for name in (TRAIN, TEST)):
        print(f"skipped: set KSCOUT_TEST_DATA to a folder with kspace/{TRAIN} and kspace/{TEST}")
        sys.exit()
    main(scans, Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="kscout-")))
