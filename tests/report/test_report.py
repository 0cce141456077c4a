"""The report, on small synthetic run folders."""

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from matplotlib.colors import LogNorm
from rich.console import Console

from kscout.report import canvas, figures, load_runs
from kscout.report.facts import facts
from kscout.report.html import write_report
from kscout.report.table import (
    COLUMNS,
    RANDOM_MASKS,
    cells,
    markdown,
    notes,
    print_summary,
    print_table,
    rows,
)
from kscout.sampling import FIXED_MASKS, Budget
from run_folders import SHAPE, edit, write_run


def unfinish(path: Path, state: str = "running") -> None:
    (path / "status.json").write_text(json.dumps({"state": state}))


def test_rows_put_baselines_first_and_the_best_first_among_them(run: Path) -> None:
    table = rows(load_runs([run]))
    assert [row["method"] for row in table] == [
        "caipirinha", "random <points>", "learned tile", "learned global",
    ]  # fmt: skip
    assert table[0]["kind"] == "fixed"
    assert table[0]["samples"] == 60
    assert table[0]["R"] == pytest.approx(13 * 18 / 60)
    assert table[0]["psnr"]["mean"] == pytest.approx(35.229, abs=1e-3)


def test_cells_mark_the_best_value_only(run: Path) -> None:
    table = cells(rows(load_runs([run])))
    column = [c.key for c in COLUMNS].index("nmse_kspace")
    assert table[0][column].text == "3.00e-04"
    assert table[0][column].interval == "[2.70, 3.30]"
    assert [line[column].best for line in table] == [False, False, True, False]
    assert not any(cell.best for line in table for cell in line[:4])


def test_unfinished_runs_are_listed_last_and_as_such(run: Path) -> None:
    unfinish(run / "compare/caipi", "failed")
    table = rows(load_runs([run]))
    assert table[-1]["method"] == "caipi (unfinished: failed)"
    assert table[-1]["kind"] is None
    assert table[-1]["psnr"] is None


def test_terminal_and_markdown_show_the_same_table(run: Path) -> None:
    write_run(run / "compare/odd", "odd [red]|one", 5e-2, n_samples=61)
    runs = load_runs([run])
    console = Console(width=200, record=True)
    print_table(runs, console)
    terminal, text = console.export_text(), markdown(runs)
    for line in cells(rows(runs)):
        for cell in line:
            assert cell.text in terminal
            assert cell.text.replace("|", "\\|") in text
    for shown in (terminal, text):
        assert "sample counts differ between methods: 60 to 61 points" in shown
    assert "**1.00e-04 [0.90, 1.10]**" in text


def test_a_shared_count_stands_above_the_table_and_all_fits_80_columns(run: Path) -> None:
    write_run(run / "compare/long", "a method with rather a long name", 9e-2)
    console = Console(width=80, record=True)
    print_table(load_runs([run]), console)
    text = console.export_text()
    assert "test: 8 slices of 2 scans; 60 samples, R=3.90 each" in text
    assert text.count("3.90") == 1
    assert "…" not in text
    assert "0.99990" in text  # SSIM 1 - 1e-4
    write_run(run / "compare/odd", "odd", 5e-2, n_samples=61)
    print_table(load_runs([run]), console)
    text = console.export_text()
    assert text.count("3.90") == 5
    assert "…" not in text


FEW = "scored on 2 scans: so few tell little of others"


def test_equal_masks_are_told_in_every_output(run: Path, tmp_path: Path) -> None:
    assert notes(load_runs([run]), "test") == [FEW]
    for name in ("tile", "2D"):
        shutil.copy(run / "mask.npy", write_run(run / f"compare/{name}", name, 5e-4) / "mask.npy")
    flipped = np.load(run / "compare/caipi/mask.npy")[::-1]
    np.save(write_run(run / "compare/near", "near", 5e-4) / "mask.npy", flipped)
    runs = load_runs([run])
    told = "tile and learned tile have the same mask as 2D"
    assert notes(runs, "test") == [told, FEW]
    console = Console(width=200, record=True)
    print_table(runs, console)
    page = write_report([run], tmp_path / "report.html").read_text(encoding="utf-8")
    terminal = console.export_text()
    for text in (terminal, markdown(runs), page):
        assert text.index("random") < text.index(told) < text.index(FEW)
        assert "8 slices of 2 scans" in text
    shutil.rmtree(run / "compare/tile")
    assert notes(load_runs([run]), "test")[0] == "learned tile has the same mask as 2D"


def test_unlike_reconstructors_are_told_with_what_differs(run: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", "other", 9e-2, reconstructor={"kind": "zero_filled"})
    start = "reconstructors differ, so the rows do not compare masks alone: "
    (told, few) = notes(load_runs([run / "compare/caipi", other]), "test")
    assert told == f"{start}spirit_net for caipirinha; zero_filled for other"
    assert few == FEW
    edit(run / "compare/caipi", "reconstructor", {"kind": "spirit_net", "n": 3, "size": 5})
    edit(run, "reconstructor", {"kind": "spirit_net", "n": 1, "size": 5})
    edit(other, "reconstructor", {"kind": "spirit_net", "n": 3, "size": 5})
    shutil.rmtree(run / "compare/points")
    shutil.rmtree(run / "compare/global")
    runs = load_runs([run, other])
    told = f"{start}spirit_net n=3 for caipirinha and other; spirit_net n=1 for learned tile"
    assert notes(runs, "test") == [told, FEW]
    assert told in markdown(runs)


def test_random_masks_are_told_to_be_single_draws(run: Path) -> None:
    edit(run / "compare/points", "sampler", {"kind": "random_points"})
    told = "random <points> is a single draw of a random mask: another seed gives another score"
    assert notes(load_runs([run]), "test") == [told, FEW]
    edit(run / "compare/caipi", "sampler", {"kind": "poisson_disc"})
    assert notes(load_runs([run]), "test")[0].startswith(
        "caipirinha and random <points> are a single draw each of"
    )


def test_random_masks_are_those_that_depend_on_the_seed(tmp_path: Path) -> None:
    budget = Budget.of(SHAPE, n_lines=4)
    np.save(tmp_path / "m.npy", np.arange(SHAPE[0] * SHAPE[1]).reshape(SHAPE) < 52)
    seeded = set()
    for kind, make in FIXED_MASKS.items():
        options = {"path": tmp_path / "m.npy"} if "file" in kind else {}
        masks = [make(budget, seed, **options) for seed in range(4)]
        if any(not torch.equal(masks[0], mask) for mask in masks):
            seeded.add(kind)
    assert seeded == set(RANDOM_MASKS)


@pytest.mark.parametrize(
    ("n", "told"), [(1, "1 scan: the interval is over its slices"), (9, "9 scans"), (10, None)]
)
def test_few_scans_are_told_for_each_condition(run: Path, n: int, told: str | None) -> None:
    results = json.loads((run / "results.json").read_text())
    results["summary"]["test_coils"] = results["summary"]["test"] | {"n_volumes": n}
    (run / "results.json").write_text(json.dumps(results))
    runs = load_runs([run])
    assert notes(runs, "test") == [FEW]
    found = notes(runs, "test_coils")
    assert len(found) == (told is not None)
    assert all(f"scored on {told}" in note for note in found)
    assert f"8 slices of {n} scan" in markdown(runs)


def test_facts_name_the_data_the_noise_the_seed_and_the_training(run: Path) -> None:
    assert "noise" not in dict(facts(load_runs([run])))
    data = {"kind": "brain", "source": "icbm152", "snr_db": None, "n_train": 8, "n_val": None,
            "n_test": 2, "slices": [60, 80], "tpm": None, "test": list(range(9))}  # fmt: skip
    training = {"epochs": 6, "loss": "nmse_kspace", "start": "random", "finish": "closed_form"}
    settings = {"seed": 7, "data": data, "training": training}
    (run / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    told = dict(facts(load_runs([run])))
    assert told["data"] == "brain"
    assert told["data options"] == ("source=icbm152, slices=[60, 80], test=[0, 1, 2, 3 and 5 more]")
    assert told["scans"] == "8 to train, 2 to test"
    assert told["noise"] == "no noise added"
    assert told["seed"] == "7"
    assert told["training"] == "epochs 6, loss nmse_kspace, start random, finish closed_form"
    assert told["scored on test"] == "8 slices of 2 scans"
    data["snr_db"] = 20.0
    (run / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    assert dict(facts(load_runs([run])))["noise"] == "added, SNR 20.0 dB"


@pytest.mark.parametrize("n_splits", [1, 3])
def test_summary_shows_every_metric_of_every_condition(n_splits: int) -> None:
    values = {"nmse_kspace": 3e-5, "nmse": 2e-5, "nmse_foreground": math.nan, "psnr": 41.239,
              "ssim": 0.99985, "psnr_foreground": 40.5, "ssim_foreground": 0.99973}  # fmt: skip
    scores = {key: {"mean": x, "low": 0.9 * x, "high": 1.1 * x} for key, x in values.items()}
    names = ["test", "test_coils [x]", "test_anatomy"][:n_splits]
    summary: dict[str, dict[str, Any]] = {
        name: {**scores, "n_slices": 120, "n_volumes": 1} for name in names
    }
    console = Console(width=80, record=True)
    print_summary(summary, console)
    text = console.export_text()
    for shown in (*names, "120 slices", "1 volume", "3.00e-05", "[2.70, 3.30]", "41.24", "0.99973"):
        assert shown in text
    assert text.count("nan") == 0
    assert text.count(" - ") == n_splits
    assert "…" not in text


def test_every_test_condition_has_its_own_table(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    results["summary"]["test_coils"] = results["summary"]["test"]
    results["summary"]["val"] = results["summary"]["test"]
    (run / "results.json").write_text(json.dumps(results))
    text = markdown(load_runs([run]))
    assert "**test_coils** (mean over slices, 8 slices of 2 scans)" in text
    assert "**val**" not in text


def test_names_that_occur_twice_are_told_apart(run: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "second", "learned tile", 1e-4, learned=True)
    labels = [r.label for r in load_runs([run, tmp_path / "second", run])]
    assert labels.count("learned tile (tile)") == 1
    assert labels.count("learned tile (second)") == 1
    assert len(labels) == 5


def test_report_is_self_contained_and_escaped(run: Path, tmp_path: Path) -> None:
    out = write_report([run], tmp_path / "out" / "report.html")
    text = out.read_text(encoding="utf-8")
    assert not re.search(r"https?://|<script|<link|src=\"(?!data:)", text)
    assert "random &lt;points&gt;" in text
    assert "random <points>" not in text
    assert "&lt;b&gt;&amp;" in text
    names = {path.name for path in (run / "figures").iterdir()}
    assert names == {
        "psnr_test.png", "reconstructions.png", "masks.png", "losses.png",
        "mask_history_learned_tile.png", "mask_history_learned_global.png",
    }  # fmt: skip
    assert text.count("data:image/png;base64,") == len(names)
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]


def test_report_of_a_single_fixed_run_and_of_nothing_finished(run: Path, tmp_path: Path) -> None:
    alone = run / "compare/caipi"
    assert "caipirinha" in write_report([alone], tmp_path / "a.html").read_text(encoding="utf-8")
    unfinish(alone)
    text = write_report([alone], tmp_path / "b.html").read_text(encoding="utf-8")
    assert "unfinished: running" in text
    assert "data:image" not in text


def test_many_methods_do_not_widen_the_figures(run: Path) -> None:
    for i in range(8):
        write_run(run / f"compare/m{i}", f"a method with rather a long name, number {i}", 0.01 + i)
    runs = load_runs([run])
    for figure in (figures.masks(runs), figures.reconstructions(runs), figures.psnr(runs)):
        assert figure is not None
        assert figure.get_size_inches()[0] * 100 <= canvas.WIDTH + 1
        boxes = [axes.get_position() for axes in figure.axes]
        assert all(b.x0 >= 0 and b.y0 >= 0 and b.x1 <= 1 and b.y1 <= 1 for b in boxes)
        overlaps = [a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i]]
        assert not any(overlaps)


def test_pictures_have_one_grey_scale_and_the_right_aspect(run: Path) -> None:
    figure = figures.reconstructions(load_runs([run]))
    assert figure is not None
    greys = [i for a in figure.axes for i in a.get_images() if i.get_array().shape != (1, 256)]
    limits = {image.get_clim() for image in greys if image.get_cmap().name == "gray"}
    errors = {image.get_clim() for image in greys if image.get_cmap().name == figures.ERROR_MAP}
    assert len(limits) == len(errors) == 1
    shape = greys[0].get_array().shape
    assert shape == SHAPE[::-1]  # a quarter turn
    box = greys[0].axes.get_position()
    height, width = box.height * figure.get_figheight(), box.width * figure.get_figwidth()
    # 13 pixels of 2 mm now run along x, 18 of 1 mm along y
    assert height / width == pytest.approx(18 / 26)


def text_of(figure: Any) -> str:
    return "\n".join(text.get_text() for text in figure.texts)


def test_error_maps_are_linear_among_equals_and_logarithmic_otherwise(run: Path) -> None:
    equals = figures.reconstructions(load_runs([run / "compare/caipi", run / "compare/global"]))
    widely = figures.reconstructions(load_runs([write_run(run / "compare/bad", "bad", 5.0), run]))
    for figure, is_log in ((equals, False), (widely, True)):
        assert figure is not None
        images = [image for axes in figure.axes for image in axes.get_images()]
        maps = [image for image in images if image.get_cmap().name == figures.ERROR_MAP]
        assert {isinstance(image.norm, LogNorm) for image in maps[:-1]} == {is_log}
        assert ("error\n(log)" in text_of(figure)) == is_log
    # No method is black beside the worst one: the last loop left the maps of both.
    assert all(
        np.percentile(np.asarray(image.get_array()), 90) > image.norm.vmin for image in maps[:-1]
    )


def test_a_learned_mask_tells_its_start_its_moves_and_the_epoch_that_was_kept(run: Path) -> None:
    history = np.load(run / "mask_history.npy")
    np.save(run / "mask.npy", history[1])
    edit(run, "sampler", {"kind": "tile", "init": "density"})
    (learned,) = load_runs([run])[:1]
    moved = int((history[1] & ~history[0]).sum())
    masks = figures.masks([learned])
    assert masks is not None
    assert f"start: density, {moved} points moved" in text_of(masks)
    shown = figures.mask_history(learned, n_snapshots=2)
    assert shown is not None
    assert "epoch 1 (kept)" in text_of(shown)
    assert "start" in text_of(shown)
    assert len(shown.axes) == 4
