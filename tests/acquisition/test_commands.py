"""kscout acquire from the configuration to the report, and what it refuses."""

import csv
import json
import shutil
from io import StringIO
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console

from commands import kscout, refused
from kscout.report.active import print_active

TINY: dict[str, Any] = {
    "name": "tiny lines",
    "data": {"kind": "digits", "n_train": 40, "n_val": 8, "n_test": 9},
    "scan": {"n_initial": 2, "budget": 3},
    "reconstructor": {"kind": "coil_unet", "n_channels": 4, "n_levels": 2},
    "training": {"epochs": 1, "loss": "nmse_image"},
    "policies": {
        "random": {"kind": "random"},
        "low to high": {"kind": "order"},
        "greedy order": {"kind": "greedy_order", "n_slices": 8},
        "DDQN": {"kind": "ddqn"},
        "same for all": {"kind": "ddqn", "sees_slice": False},
        "evaluator": {"kind": "evaluator"},
        "gradient": {"kind": "policy_gradient", "n_rollouts": 2},
        "staged": {"kind": "staged", "n_channels": 2},
        "oracle": {"kind": "oracle"},
    },
    "learning": {"epochs": 1, "batch_size": 16, "seeds": 2},
    "finetune": {"policies": ["greedy order", "DDQN"], "epochs": 1},
}


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "acquire.yaml"
    path.write_text(yaml.safe_dump(TINY | changes, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of policies, trained and judged."""

    from kscout.experiment.active import ActiveFolder, load_active
    from kscout.experiment.judge import judge_policies
    from kscout.experiment.trained import train_policies
    from kscout.report.active import write_active_report

    folder = tmp_path_factory.mktemp("acquire")
    console = Console(quiet=True)
    train_policies(load_active(write(folder), []), ActiveFolder(folder / "out"), console)
    judge_policies(folder / "out", console)
    write_active_report(folder / "out")
    return folder / "out"


def test_results_are_those_of_the_records(trained: Path) -> None:
    with (trained / "records.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = json.loads((trained / "results.json").read_text())["results"]["test"]
    assert len(found["policies"]) == len(TINY["policies"]) + 2
    once = ("low to high", "greedy order", "oracle")
    n_seeds = {name: 1 if name in once else 2 for name in found["policies"]}
    assert len(rows) == sum(n_seeds.values()) * 9 * 4
    assert found["n_acquired"] == [2, 3, 4, 5]
    for name, policy in found["policies"].items():
        own = [row for row in rows if row["policy"] == name]
        for step, n_acquired in enumerate(found["n_acquired"]):
            scores = [float(r["score"]) for r in own if int(r["n_acquired"]) == n_acquired]
            assert len(scores) == 9 * n_seeds[name]
            assert policy["mean"][step] == pytest.approx(sum(scores) / len(scores))
        curve = policy["mean"]
        area = (curve[0] / 2 + curve[1] + curve[2] + curve[3] / 2) / 3
        assert policy["area"]["mean"] == pytest.approx(area)
        assert len(policy["area_by_seed"]) == n_seeds[name]
        assert sum(policy["area_by_seed"]) / n_seeds[name] == pytest.approx(area)
        for i, seed in product(range(9), range(n_seeds[name])):
            units = [r["unit"] for r in own if (int(r["slice"]), int(r["seed"])) == (i, seed)]
            assert units[0] == ""
            assert len(set(units[1:])) == 3
            assert not {"13", "14"} & set(units)  # acquired first
    own = ("staged", "greedy order tuned", "DDQN tuned")  # with reconstructors of their own
    starts = [policy["mean"][0] for name, policy in found["policies"].items() if name not in own]
    assert max(starts) == pytest.approx(min(starts))
    for name in own:
        assert found["policies"][name]["mean"][0] != pytest.approx(starts[0], rel=1e-4)
    orders = [found["policies"][name] for name in ("low to high", "greedy order", "same for all")]
    best = found["policies"][found["best_order"]]
    assert best in orders
    for name in ("low to high", "greedy order", "same for all"):  # none is ahead of the best
        if name != found["best_order"]:
            assert found["policies"][name]["ahead_of"][found["best_order"]]["mean"] <= 0
    expected = ["low to high", "random", found["best_order"], "greedy order tuned"]
    assert found["references"] == list(dict.fromkeys(expected))


def test_the_page_has_every_policy_and_moves(trained: Path) -> None:
    page, markdown = (trained / "report.html").read_text(), (trained / "report.md").read_text()
    found = json.loads((trained / "results.json").read_text())["results"]["test"]
    for name, policy in found["policies"].items():
        assert name in page
        assert f"| {name} |" in markdown
        assert f"{policy['area']['mean']:.2e}" in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("data:image/gif;base64,") == 3
    with Image.open(trained / "figures" / "acquisition_1.gif") as animation:
        assert animation.n_frames == 4


@pytest.mark.parametrize("width", [80, 160])
def test_the_table_is_whole_in_a_terminal(trained: Path, width: int) -> None:
    printed = StringIO()
    print_active(trained, Console(file=printed, width=width))
    text = printed.getvalue()
    found = json.loads((trained / "results.json").read_text())["results"]["test"]
    assert "…" not in text
    for name, policy in found["policies"].items():
        assert name.split()[0] in text
        assert f"{policy['area']['mean']:.2e}" in text


def test_the_command_goes_on_where_it_was(trained: Path, tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "out"
    shutil.copytree(trained, folder)
    kept = (folder / "policies" / "evaluator" / "seed-0" / "policy.ckpt").stat().st_mtime_ns
    shutil.rmtree(folder / "policies" / "DDQN" / "seed-1")
    ended = kscout(capsys, "acquire", "train", write(tmp_path), "--out", folder)
    assert ended.code == 0
    assert f"kscout acquire eval {folder}" in " ".join(ended.out.split())
    assert (folder / "policies" / "evaluator" / "seed-0" / "policy.ckpt").stat().st_mtime_ns == kept
    same = [
        torch.load(f / "policies" / "DDQN" / "seed-1" / "policy.ckpt", weights_only=True)["policy"]
        for f in (trained, folder)
    ]
    assert all(torch.equal(same[0][key], same[1][key]) for key in same[0])
    before = (trained / "results.json").read_text()
    assert kscout(capsys, "acquire", "eval", folder).code == 0
    assert (folder / "results.json").read_text() == before


def test_what_is_refused(trained: Path, tmp_path: Path, capsys: Any) -> None:
    def told(*words: object) -> str:
        return refused(capsys, "acquire", *words)

    config = write(tmp_path)
    out = ("--out", tmp_path / "new")
    assert "scan.budget is 0: input should be greater" in told("train", config, "scan.budget=0")
    assert "valid is a budget of 1 to 26" in told("train", config, "scan.budget=27", *out)
    assert "unknown key policies.DDQN.lr: valid here are" in told(
        "train", config, "policies.DDQN.lr=1"
    )
    assert "policies.x.kind is 'dqn': valid is 'random'" in told(
        "train", config, "policies.x.kind=dqn"
    )
    for name in ("x", "random", "oracle", "staged"):
        assert f"'{name}' cannot be: valid is low to high, greedy order, DDQN" in told(
            "train", config, f"finetune.policies=[{name}]"
        )
    assert "'DDQN tuned' is a policy's name already" in told(
        "train", config, "policies.DDQN tuned.kind=ddqn"
    )
    for units, shown in (("[3,3]", r"[3, 3]"), ("[28]", "[28]")):
        said = told("train", config, f"policies.low to high.units={units}", *out)
        assert f"an order of units {shown}: valid is each of 0 to 27 once at most" in said
    assert "learning.patience needs validation data" in told(
        "train", config, "learning.patience=2", "data.n_val=0", *out
    )
    assert "valid with them is one that learns by gradient descent" in told(
        "train", config, "reconstructor={kind: zero_filled}", *out
    )
    assert "exactly one is needed: a reconstructor to train, or a finished run" in told(
        "train", config, f"run={tmp_path}", *out
    )
    assert "valid with it are lines, scan.n_initial 16 or more, or its own acs_size of 2" in told(
        "train", config, "reconstructor={kind: gaussian_sense}", *out
    )
    assert "valid is scan.units of these" in told("train", config, "scan.units=tile", *out)
    assert "(learning differ from its config.yaml)" in told(
        "train", config, "learning.epochs=2", "--out", trained
    )
    assert "(policies.DDQN differ from" in told(
        "train", config, "policies.DDQN.gamma=0.5", "--out", trained
    )
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    assert "is not empty and holds no policies" in told("train", config, "--out", tmp_path / "full")
    assert "is not a writable folder" in told("train", config, "--out", config / "below")
    assert "holds no policies: valid is a folder of" in told("eval", tmp_path / "full")
    assert "is not a run folder" in told(
        "train", config, f"run={tmp_path}", "reconstructor=null", *out
    )
    run = f"run={trained / 'reconstructor'}"
    assert "was trained with other digits data, which may hold slices" in told(
        "train", config, run, "reconstructor=null", "data.n_test=10", *out
    )


def test_a_checkpoint_of_another_scan_is_refused(
    trained: Path, tmp_path: Path, capsys: Any
) -> None:
    folder = tmp_path / "out"
    shutil.copytree(trained, folder)
    path = folder / "policies" / "DDQN" / "seed-1" / "policy.ckpt"
    whole = torch.load(path, weights_only=True)
    for key, value in (
        ("budget", 4), ("units", "28 tile"), ("metric", "psnr"), ("seed", 7), ("reconstructor", "a")
    ):  # fmt: skip
        torch.save(whole | {"made_for": whole["made_for"] | {key: value}}, path)
        said = f"was trained for {key} {value}: valid here is {whole['made_for'][key]}"
        assert said in refused(capsys, "acquire", "eval", folder)
    shutil.copy(folder / "policies" / "evaluator" / "seed-1" / "policy.ckpt", path)
    assert "was trained for policy {'kind': 'evaluator'" in refused(
        capsys, "acquire", "train", write(tmp_path), "--out", folder
    )
    torch.save(whole | {"policy": {"x": torch.ones(1)}}, path)
    assert "holds another network" in refused(capsys, "acquire", "eval", folder)
    path.write_bytes(path.read_bytes()[:100])
    said = refused(capsys, "acquire", "eval", folder)
    assert "is no checkpoint of a policy: kscout acquire train makes it anew" in said
    ended = kscout(capsys, "acquire", "train", write(tmp_path), "--out", folder)
    assert (ended.code, "kept as policy.ckpt.damaged, and trained again" in ended.out) == (0, True)
    again = torch.load(path, weights_only=True)["policy"]
    assert all(torch.equal(again[key], whole["policy"][key]) for key in again)
    path.unlink()
    assert "DDQN is not trained: kscout acquire train" in refused(capsys, "acquire", "eval", folder)
