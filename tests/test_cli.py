import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from commands import files_in, kscout, refused, write_config
from kscout.data.files import read_kspace
from kscout.data.formats.bart import write_cfl
from kscout.sampling import FIXED_MASKS
from kscout.sampling.files import read_mask

COMMANDS = [
    "train",
    "evaluate",
    "recon",
    "report",
    "mask make",
    "mask show",
    "mask search",
    "mask bound",
    "bench check",
    "bench run",
    "bench table",
    "data simulate",
    "data show",
    "data info",
    "data convert",
]


MAKE = ("mask", "make", "caipirinha")


def test_help_lists_every_command(capsys):
    ended = kscout(capsys, "--help")
    assert ended.code == 0
    for command in COMMANDS:
        assert command.split()[0] in ended.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example_of_itself(capsys, command):
    ended = kscout(capsys, *command.split(), "--help")
    assert ended.code == 0
    assert "Example" in ended.out
    assert f"kscout {command} " in ended.out


def test_the_version(capsys):
    assert kscout(capsys, "--version").out.strip().count(".") == 2


@pytest.mark.parametrize(
    "words",
    [[], ["fly"], ["train"], ["train", "a.yaml", "--fast"], ["mask"], ["mask", "make", "lattice"]],
)
def test_wrong_usage_ends_with_code_2(capsys, words):
    assert kscout(capsys, *words).code == 2


@pytest.mark.parametrize("option", ["-R=x", "--seed=-1", f"--seed={2**70}", "--acs-size=big"])
def test_wrong_option_values_end_with_code_2(capsys, tmp_path, option):
    words = ("mask", "make", "random_points", "--out", tmp_path / "m.npy", "-R", 4, option)
    assert kscout(capsys, *words).code == 2
    assert files_in(tmp_path) == []


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from kscout.cli import app; app(['train', '--help'], standalone_mode=False);"
        "sys.exit(' '.join({'torch', 'numpy', 'yaml', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "Examples" in ended.stdout


def test_a_refusal_is_one_line_without_a_traceback(tmp_path):
    code = "from kscout.cli import main; main()"
    words = ["train", str(tmp_path / "two\nlines.yaml")]
    ended = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr == (
        f"error: cannot read {tmp_path}/two lines.yaml: No such file or directory\n"
    )


def test_train_writes_a_run_and_a_report_and_says_where(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_config(tmp_path / "a.yaml", name="two words")
    ended = kscout(capsys, "train", path, "training.epochs=1")
    assert ended.code == 0, ended.err
    assert ended.err == ""
    assert "two words" in ended.out
    assert "report: runs/two-words/report.html" in ended.out
    report = Path("runs/two-words/report.html").read_text()
    assert "two words" in report
    ended = kscout(capsys, "train", path, "training.epochs=1")
    assert "nothing left to do" in ended.out
    assert "holds another experiment (training differ)" in refused(capsys, "train", path)


def test_a_name_that_no_longer_says_which_sampler_is_pointed_out(capsys, config, tmp_path):
    words = ("train", config, "training.epochs=0", "--out")
    note = f"note: the caipirinha sampler is called 'tiny', as in {config}: name=..."
    for i, kind in enumerate(("sampler.kind=caipirinha", "sampler={kind: caipirinha}")):
        assert note in kscout(capsys, *words, tmp_path / f"{i}", kind).out
    assert "note" not in kscout(capsys, *words, tmp_path / "2", kind, "name=lattice").out
    assert "note" not in kscout(capsys, *words, tmp_path / "3", "sampler.init=flat").out


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("sampler.kind=foo", "sampler.kind is 'foo': valid is 'caipirinha'"),
        ("budget.acceleration=0.5", "acceleration 0.5 is impossible"),
        ("data.path=none.npz", "none.npz: no such file"),
        ("sampler", "'sampler' is not of the form key.path=value"),
    ],
)
def test_train_refuses_in_a_line_and_leaves_nothing(capsys, config, tmp_path, override, said):
    assert said in refused(capsys, "train", config, override, "--out", tmp_path / "run")
    assert files_in(tmp_path) == [config]


@pytest.mark.parametrize("out", ["tiny.yaml", "tiny.yaml/run", "/dev/full", "/proc/x", "x" * 300])
def test_train_refuses_folders_that_cannot_be_written(capsys, config, tmp_path, out):
    assert "cannot write" in refused(capsys, "train", config, "--out", tmp_path / out)
    assert files_in(tmp_path) == [config]


def test_train_refuses_k_space_that_is_none(capsys, tmp_path):
    rng = np.random.default_rng(0)
    good = (rng.normal(size=(2, 9, 12)) + 1j).astype(np.complex64)
    np.save(tmp_path / "good.npy", good)
    (tmp_path / "empty").mkdir()
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["image"] = good
    (tmp_path / "cut.npy").write_bytes((tmp_path / "good.npy").read_bytes()[:500])
    bad = {
        "nan": good + np.nan,
        "infinite": good * np.inf,
        "zero": 0 * good,
        "real": good.real,
        "rank": good[None, None],
        "shape": good[:, :8],
        "lacking": good * (np.arange(12) % 2),
    }
    for name, array in bad.items():
        np.save(tmp_path / f"{name}.npy", array)
    config = write_config(tmp_path / "a.yaml", data={"kind": "files"})
    for name in [*(f"{name}.npy" for name in bad), "empty", "foreign.h5", "cut.npy", "none.npy"]:
        data = f"data.train=[{tmp_path}/good.npy]", f"data.test=[{tmp_path}/{name}]"
        text = refused(capsys, "train", config, *data, "--out", tmp_path / "run")
        assert str(tmp_path / name) in text
        assert not (tmp_path / "run").exists()
    twice = f"data.train=[{tmp_path}/good.npy]", f"data.test=[{tmp_path}/good.npy]"
    assert "again for 'test'" in refused(capsys, "train", config, *twice)


@pytest.mark.parametrize("kind", set(FIXED_MASKS) - {"file"})
def test_mask_make_writes_the_exact_budget(capsys, tmp_path, kind):
    out = tmp_path / "m.npy"
    budget = ["--acs", "square", "--acs-size", 3]
    if kind == "uniform_lines":
        budget = ["--n-lines", 5]
    else:
        budget += ["--n-samples", 41]
    ended = kscout(capsys, "mask", "make", kind, "--shape", "11x17", *budget, "--out", out)
    assert ended.code == 0, ended.err
    n = 55 if kind == "uniform_lines" else 41
    assert f"{n} of 187 points" in ended.out
    mask = read_mask(out)
    assert mask.shape == (11, 17)
    assert int(mask.sum()) == n
    assert files_in(tmp_path) == [out]


def test_mask_make_takes_options_and_seeds(capsys, tmp_path):
    words = ("mask", "make", "--shape", "12x14", "-R", 4)
    a, b, c, d = (tmp_path / f"{name}.npy" for name in "abcd")
    assert kscout(capsys, *words, "caipirinha", "factors=[2,2]", "--out", a).code == 0
    assert kscout(capsys, *words, "caipirinha", "factors=[4,1]", "--out", b).code == 0
    assert (read_mask(a) != read_mask(b)).any()
    for out, seed in ((b, 1), (c, 1), (d, 2)):
        assert kscout(capsys, *words, "random_points", "--seed", seed, "--out", out).code == 0
    assert (read_mask(b) == read_mask(c)).all()
    assert (read_mask(b) != read_mask(d)).any()
    assert kscout(capsys, *words, "file", f"path={a}", "--out", c).code == 0
    assert (read_mask(a) == read_mask(c)).all()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lattice", "-R", 4], "'lattice' is unknown: valid is caipirinha"),
        (["caipirinha"], "exactly one of acceleration, n_samples and n_lines"),
        (["caipirinha", "-R", 4, "--n-samples", 3], "exactly one of"),
        (["caipirinha", "-R", 0.5], "acceleration 0.5 is impossible"),
        (["caipirinha", "-R", "nan"], "acceleration is nan"),
        (["caipirinha", "-R", 4, "--acs", "disc"], "acs is 'disc'"),
        (["caipirinha", "-R", 4, "--acs", "square", "--acs-size", 20], "the ACS alone has 400"),
        (["caipirinha", "-R", 4, "factor=2"], "unknown key factor: valid here are factors, shift"),
        (["caipirinha", "-R", 4, "factors"], "not of the form"),
        (["caipirinha", "-R", 4, "factors=[0,4]"], "factors"),
        (["random_tile", "-R", 4, "tile=[99,1]"], "a tile of 99x1 does not fit"),
        (["poisson_disc", "-R", 4, "slope=.inf"], "slope is inf"),
        (["file", "-R", 4], "path is missing"),
        *(
            (["caipirinha", "-R", 4, "--shape", size], "is not a size: valid is KYxKX")
            for size in ("12", "12x", "0x4", "12x13x2", "-1x4", "1e2x4", "²x3", "99999x1", "axb")
        ),
    ],
)
def test_mask_make_refuses_in_a_line(capsys, tmp_path, words, said):
    size = [] if "--shape" in words else ["--shape", "20x24"]
    text = refused(capsys, "mask", "make", *words, *size, "--out", tmp_path / "m.npy")
    assert said in text
    assert files_in(tmp_path) == []


def test_masks_are_written_as_npy_only(capsys, config, tmp_path):
    for out in ("m.png", "m", "tiny.yaml/m.npy"):
        words = ("--shape", "8x8", "-R", 4, "--out", tmp_path / out)
        assert out in refused(capsys, "mask", "make", "caipirinha", *words)
    assert "m.txt" in refused(capsys, "mask", "search", config, "--out", tmp_path / "m.txt")
    assert files_in(tmp_path) == [config]


def test_mask_show_draws_masks(capsys, tmp_path):
    np.save(tmp_path / "a.npy", np.eye(5, 7, dtype=bool))
    np.save(tmp_path / "b.npy", np.eye(3))
    words = ("mask", "show", tmp_path / "a.npy", tmp_path / "b.npy", "--out", tmp_path / "m.png")
    assert kscout(capsys, *words).code == 0
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")
    np.save(tmp_path / "c.npy", np.full((3, 3), 0.5))
    for name in ("c.npy", "none.npy"):
        out = tmp_path / "n.png"
        assert name in refused(capsys, "mask", "show", tmp_path / name, "--out", out)
        assert not out.exists()


def test_a_mask_of_another_budget_is_told_how_to_be_bounded(capsys, config, tmp_path):
    out = tmp_path / "m.npy"
    assert kscout(capsys, *MAKE, "-R", 7, "--shape", "28x28", "--out", out).code == 0
    acs = ["--set", "budget.acs=square", "--set", "budget.acs_size=4"]
    bound = ("mask", "bound", out, "--config", config, "--n-steps", 1, "--n-slices", 2)
    said = refused(capsys, *bound, *acs)
    change, make = said.split("bound this mask with ")[1].split(", or make one with ")
    assert change == (
        "--set budget.acceleration=null --set budget.n_samples=112 --set budget.acs=none"
    )
    assert (
        make.strip() == "kscout mask make --shape 28x28 --n-samples 196 --acs square --acs-size 4"
    )
    assert kscout(capsys, *bound, *acs, *change.split()).code == 0
    assert kscout(capsys, *MAKE, *make.split()[3:], "--out", out).code == 0
    assert kscout(capsys, *bound, *acs).code == 0
    assert kscout(capsys, *MAKE, "-R", 4, "--shape", "9x9", "--out", out).code == 0
    assert refused(capsys, *bound).endswith(
        "; make one with kscout mask make --shape 28x28 --n-samples 196\n"
    )


def test_what_is_bounded_is_said(capsys, config, tmp_path):
    lines, disc = tmp_path / "lines.npy", tmp_path / "disc.npy"
    make = ("mask", "make", "--shape", "28x28")
    assert kscout(capsys, *make, "uniform_lines", "--n-lines", 7, "--out", lines).code == 0
    assert kscout(capsys, *make, "poisson_disc", "-R", 4, "--out", disc).code == 0
    ask = ("--config", config, "--n-steps", 1, "--n-slices", 2)
    for masks, said in (
        ([lines], "no mask of whole columns of the same budget"),
        ([disc], "no mask, of points or of whole columns, of the same budget"),
        ([lines, disc], "no mask, of points or of whole columns, of the same budget"),
    ):
        assert said in " ".join(kscout(capsys, "mask", "bound", *masks, *ask).out.split())


def test_folders_without_one_mask_for_all_slices_are_not_bounded(
    capsys, config, finished, tmp_path
):
    bound = ("mask", "bound", "--config", config)
    said = f"{tmp_path} is no run: valid is a mask as .npy or .cfl, or the folder of a run"
    assert f"{said}\n" in refused(capsys, *bound, tmp_path)
    run = shutil.copytree(finished, tmp_path / "suite" / "runs" / "ab12")
    assert f"{said}, such as {run}" in refused(capsys, *bound, tmp_path)
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps(results | {"adaptive": True}))
    assert f"{run} gives every slice its own mask" in refused(capsys, *bound, run)


def test_a_folder_of_results_is_all_of_them(capsys, tmp_path):
    assert "holds no results of suites: valid are the .json" in refused(
        capsys, "bench", "table", tmp_path
    )
    (tmp_path / "x.json").write_text("{}")
    assert "x.json is no result of" in refused(capsys, "bench", "table", tmp_path)
    (tmp_path / "suite.yaml").touch()
    assert "holds no results of suites" in refused(capsys, "bench", "table", tmp_path)


def test_mask_search_ranks_every_tile(capsys, config, tmp_path):
    words = ("mask", "search", config, "--tile", "2x3", "sampler.kind=tile_search")
    out = tmp_path / "best.npy"
    ended = kscout(capsys, *words, "sampler.n_finalists=1", "budget.acceleration=3", "--out", out)
    assert ended.code == 0, ended.err
    assert "3 tiles ranked" in ended.out  # 15 of 2 in 6 points, up to 6 shifts
    assert int(read_mask(out).sum()) == round(28 * 28 / 3)
    for tile, said in (("29x2", "does not fit"), ("1x1", "has no point left"), ("2", "not a size")):
        assert said in refused(capsys, "mask", "search", config, "--tile", tile)


def test_ctrl_c_promises_to_go_on_only_where_it_does(capsys, monkeypatch, config, tmp_path):
    def press_ctrl_c(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("kscout.experiment.masks.search_tiles", press_ctrl_c)
    monkeypatch.setattr("kscout.experiment.run_experiment", press_ctrl_c)
    stopped = kscout(capsys, "mask", "search", config)
    assert (stopped.code, stopped.err) == (130, "interrupted\n")
    stopped = kscout(capsys, "train", config, "--out", tmp_path / "run")
    assert stopped.err == "interrupted: kscout train goes on from here when called again\n"


def test_report_refuses_what_is_no_run(capsys, tmp_path, finished):
    assert "is not a run folder" in refused(capsys, "report", tmp_path)
    assert "cannot write" in refused(capsys, "report", finished, "--out", "/proc/x/report.html")


def test_real_scans_are_drawn_and_trained_on(capsys, tmp_path, real_kspace):
    for scan in sorted(real_kspace.glob("*.npy")):
        out = tmp_path / f"{scan.stem}.png"
        assert kscout(capsys, "data", "show", scan, "--out", out).code == 0
        assert out.stat().st_size > 10_000
    train, test = (real_kspace / f"brain_{n}_4ch_256x256.npy" for n in ("mprage", "t2"))
    fit = {"epochs": 0, "finish": "closed_form", "closed_form": {"n_slices": 1}}
    config = write_config(tmp_path / "a.yaml", sampler={"kind": "caipirinha"}, training=fit)
    data = ["data.kind=files", f"data.train=[{train}]", f"data.test=[{test}]"]
    run = tmp_path / "run"
    assert kscout(capsys, "train", config, *data, "--out", run).code == 0
    ended = kscout(capsys, "recon", test, "--method", run, "--out", tmp_path / "t2.nii.gz")
    assert "fully sampled, masked with 16384 of 65536 points" in ended.out


def test_masks_are_written_as_points_and_for_bart(capsys, tmp_path):
    words = ("mask", "make", "poisson_disc", "--shape", "21x30", "-R", 4)
    for name in ("m.npy", "m.csv", "m.cfl"):
        assert kscout(capsys, *words, "--out", tmp_path / name).code == 0
    mask = read_mask(tmp_path / "m.npy")
    header, *lines = (tmp_path / "m.csv").read_text().splitlines()
    assert header == "ky,kx"
    assert [[int(n) for n in line.split(",")] for line in lines] == mask.nonzero().tolist()
    assert torch.equal(read_kspace(tmp_path / "m.cfl")[0, 0], mask.to(torch.complex64))
    assert "a mask is written as .npy, .cfl, .csv" in refused(
        capsys, *words, "--out", tmp_path / "m.png"
    )


def test_masks_of_bart_and_of_runs_are_read(capsys, tmp_path, finished):
    mask = torch.rand(21, 30, generator=torch.Generator().manual_seed(0)) > 0.5
    write_cfl(tmp_path / "m.cfl", mask[None, None], (1, 1, 21, 30))
    header = tmp_path / "m.hdr"
    for dims in ("21 30 1", "1 21 30"):  # BART's own masks lie along its phase encodings
        header.write_text(f"# Dimensions\n{dims}\n")
        assert kscout(capsys, "mask", "convert", tmp_path / "m.cfl", tmp_path / "m.npy").code == 0
        assert torch.equal(read_mask(tmp_path / "m.npy"), mask)
    shown = kscout(
        capsys, "mask", "show", finished, tmp_path / "m.cfl", "--out", tmp_path / "m.png"
    )
    assert shown.code == 0
    convert = ("mask", "convert", tmp_path / "m.cfl", tmp_path / "other.npy")
    header.write_text("# Dimensions\n7 3 30\n")
    assert "m.cfl has shape (7, 3, 30): valid is (ky, kx)" in refused(capsys, *convert)
    write_cfl(tmp_path / "m.cfl", 1j * mask[None, None], (1, 1, 21, 30))
    assert "is not binary" in refused(capsys, *convert)
    header.unlink()
    assert "its header m.hdr cannot be read" in refused(capsys, *convert)
    assert not (tmp_path / "other.npy").exists()


def test_lines_that_are_not_whole_are_told(capsys, tmp_path):
    out = ("--shape", "40x30", "--out", tmp_path / "m.npy")
    cut = kscout(capsys, "mask", "make", "uniform_lines", "-R", "3.7", *out)
    assert "columns are cut to meet the count: --n-lines makes whole ones" in cut.out
    points = kscout(capsys, "mask", "make", "caipirinha", "--n-lines", "10", *out)
    assert "caipirinha spends the points of 10 lines, and not on whole columns" in points.out
    assert "note" not in kscout(capsys, "mask", "make", "uniform_lines", "--n-lines", 8, *out).out
