"""The examples and the code of the documentation run, and do what they say."""

import os
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import laws
from kscout.errors import UserError
from kscout.experiment.config import check, options_of
from kscout.sampling import Budget

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


def run(name: str, monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_every_example_is_tested() -> None:
    tested = {"python_api.py", "real_scans.py", "simulate_train_recon.py"}
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested


def test_python_api(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    run("python_api.py", monkeypatch)
    mean = float(re.findall(r"'mean': ([\d.]+)", capsys.readouterr().out)[0])
    assert mean > 35


def test_simulate_train_recon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    run("simulate_train_recon.py", monkeypatch, tmp_path)
    assert (tmp_path / "run" / "report.html").is_file()
    for name in ("reconstructed.nii.gz", "reconstructed.png", "mask.png"):
        assert (tmp_path / name).stat().st_size > 0
    assert float(re.findall(r"image NMSE ([\d.e-]+)", capsys.readouterr().out)[0]) < 5e-3


def test_real_scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    if not os.environ.get("KSCOUT_TEST_DATA"):
        pytest.skip("KSCOUT_TEST_DATA is unset: no real scans")
    run("real_scans.py", monkeypatch, tmp_path)
    assert (tmp_path / "run" / "report.html").is_file()
    assert len(list(tmp_path.glob("*.png"))) == 4
    fitted, other = map(float, re.findall(r"image NMSE ([\d.e-]+)", capsys.readouterr().out))
    assert fitted < 0.01 < other  # what the example's remark says


@pytest.mark.parametrize("folder", [None, "nowhere"])
def test_real_scans_says_what_is_missing(
    folder: str | None, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.delenv("KSCOUT_TEST_DATA", raising=False)
    if folder:
        monkeypatch.setenv("KSCOUT_TEST_DATA", folder)
    with pytest.raises(SystemExit) as ended:
        run("real_scans.py", monkeypatch)
    assert not ended.value.code
    assert capsys.readouterr().out.startswith("skipped: set KSCOUT_TEST_DATA")


@pytest.fixture(scope="module")
def extensions() -> dict[str, Any]:
    """What the code of docs/extending.md defines; each block stands alone."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "extending.md").read_text(), re.S)
    assert len(blocks) == 4
    defined: dict[str, Any] = {}
    for block in blocks:
        space: dict[str, Any] = {"__name__": "extending"}
        exec(compile(block, "docs/extending.md", "exec"), space)
        defined |= {name: space[name] for name in space if name in EXTENSIONS}
    return defined


EXTENSIONS = ("spokes", "MirroredSampler", "ImageNet", "discs")


def test_configuration_of_the_extensions(extensions: dict[str, Any]) -> None:
    found = {name: set(options_of(extensions[name]).model_fields) for name in EXTENSIONS}
    assert found == {
        "spokes": {"n_spokes"},
        "MirroredSampler": {"init", "noise"},
        "ImageNet": {"width"},
        "discs": {"n_train", "n_test", "n_coils", "disc_seed"},
    }
    with pytest.raises(UserError, match="n_spokes is 0"):
        check(options_of(extensions["spokes"]), {"n_spokes": 0}, "spokes")


@pytest.mark.parametrize("shape", [(17, 13), (16, 13), (12, 18)])
def test_the_fixed_mask_keeps_the_laws(extensions: dict[str, Any], shape: tuple[int, int]) -> None:
    budget = Budget.of(shape, acceleration=3, acs="square", acs_size=3)
    laws.exact_budget(extensions["spokes"](budget, 0, n_spokes=5), budget)
    laws.deterministic(lambda seed: extensions["spokes"](budget, seed), differs=False)


@pytest.mark.parametrize("shape", [(17, 13), (16, 13), (12, 18)])
def test_the_learned_sampler_keeps_the_laws(
    extensions: dict[str, Any], shape: tuple[int, int]
) -> None:
    budget = Budget.of(shape, n_samples=41, acs="square", acs_size=3)

    def make(seed: int) -> torch.Tensor:
        return extensions["MirroredSampler"](budget, seed, init="random_points").mask()

    laws.exact_budget(make(0), budget)
    laws.deterministic(make, differs=True)
    psf = torch.fft.ifft2(torch.fft.ifftshift(make(0).double()))
    assert psf.imag.abs().max() < 0.02 * psf.real.abs().max()  # a pair may be split by the count


def test_the_learned_sampler_trains(extensions: dict[str, Any]) -> None:
    sampler = extensions["MirroredSampler"](Budget.of((9, 8), n_samples=20), 0)
    (sampler() * torch.rand(9, 8, generator=torch.Generator().manual_seed(0))).sum().backward()
    assert sampler.scores.grad.count_nonzero() > 36


def test_the_reconstructor_keeps_the_laws(extensions: dict[str, Any]) -> None:
    kspace = laws.complex_normal((2, 3, 17, 12))
    mask = (torch.rand(17, 12, generator=torch.Generator().manual_seed(0)) < 0.4).float()
    net = extensions["ImageNet"](3, 0, width=4)
    laws.data_consistent(net, kspace, mask)
    laws.deterministic(
        lambda seed: torch.cat(
            [p.detach().flatten() for p in extensions["ImageNet"](3, seed).parameters()]
        ),
        differs=True,
    )


def test_the_data_source_splits_by_scan(extensions: dict[str, Any]) -> None:
    splits = extensions["discs"](n_train=3, n_test=2, n_coils=3)
    assert {name: len(part) for name, part in splits.items()} == {"train": 3, "val": 0, "test": 2}
    assert splits["train"].kspace.shape == (3, 3, 48, 41)
    image = splits["test"].image(splits["test"].target)
    assert image[:, 24, 20].sub(1).abs().max() < 0.01  # birdcage coils add up to 1
    laws.deterministic(
        lambda seed: extensions["discs"](disc_seed=seed)["test"].kspace, differs=True
    )
