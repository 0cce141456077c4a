"""Pictures of why a mask is good: what is drawn is what was given."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kscout.report import canvas
from kscout.report.why import FLOOR_DB, MaskFacts, caption, masks_explained

SHAPE = (9, 14)


def facts(name: str, seed: int = 0, *, coils: bool = True, shape: Any = SHAPE) -> MaskFacts:
    """Numbers that mean nothing, but are told apart."""
    rng = np.random.default_rng(seed)
    psf = rng.random(shape) * 0.3 * np.exp(2j * np.pi * rng.random(shape))
    psf[shape[0] // 2, shape[1] // 2] = 1
    g = 1 + rng.random(shape) * (seed + 1)
    g[:, :2] = np.nan
    fraction = rng.random(8)
    fraction[3] = np.nan
    density = (np.linspace(0.05, 1.3, 8), fraction)
    mask = rng.random(shape) < 0.4
    return MaskFacts(name, mask, psf, density, float(rng.random()), g if coils else None)


def pictures(figure: Any) -> list[Any]:
    """The images that are not colour bars, which are one row of colours."""
    images = [image for axes in figure.axes for image in axes.get_images()]
    return [image for image in images if image.get_array().shape[0] > 1]


def lines(figure: Any) -> list[list[Any]]:
    """Curves of each chart."""
    return [list(axes.lines) for axes in figure.axes if axes.lines]


def texts(figure: Any) -> str:
    return "\n".join(text.get_text() for text in figure.texts)


def is_laid_out(figure: Any) -> bool:
    """Everything lies on the page, and no picture, chart or text on another, ticks included."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer = FigureCanvasAgg(figure).get_renderer()
    page = figure.bbox
    drawn = [*figure.axes, *figure.texts]
    boxes = [one.get_tightbbox(renderer).padded(-1) for one in drawn]
    on_page = all(b.x0 >= 0 and b.y0 >= 0 and b.x1 <= page.x1 and b.y1 <= page.y1 for b in boxes)
    return on_page and not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


ENTRIES = [facts("one"), facts("two $x$", 1), facts("three", 2, coils=False)]


@pytest.mark.parametrize("quarter_turns", [0, 1, 3])
def test_every_row_shows_the_arrays_of_its_mask(quarter_turns: int) -> None:
    figure = masks_explained(ENTRIES, quarter_turns=quarter_turns)
    shown = iter(pictures(figure))
    for entry in ENTRIES:
        assert np.array_equal(next(shown).get_array(), entry.mask)
        decibel = np.maximum(20 * np.log10(np.abs(entry.psf)), FLOOR_DB)
        np.testing.assert_allclose(next(shown).get_array(), np.rot90(decibel, quarter_turns))
        if entry.gfactor is not None:
            array = next(shown).get_array()
            expected = np.rot90(entry.gfactor, quarter_turns)
            np.testing.assert_array_equal(array.filled(np.nan), expected)
    assert next(shown, None) is None
    assert is_laid_out(figure)


def test_a_ghost_shows_on_a_large_plane() -> None:
    """One pixel finer than a dot would be lost to the eye, or to the one drawing it."""
    psf = np.zeros((601, 700))
    psf[300, 350] = psf[0, 699] = 1
    large = replace(facts("large", shape=psf.shape), psf=psf)
    _, spread, _ = pictures(masks_explained([large]))
    bright = np.argwhere(spread.get_array() == 0)
    assert {tuple(place) for place in ([300, 350], [0, 699], [600, 0], [1, 698])} <= {
        tuple(place) for place in bright.tolist()
    }
    box = spread.axes.get_window_extent()
    assert len(bright) / 2 * box.width * box.height / psf.size >= (2 * canvas.RESOLUTION / 100) ** 2


def test_masks_share_their_scales() -> None:
    shown = pictures(masks_explained(ENTRIES))
    noise = [image.get_clim() for image in shown if image.get_cmap().name == "viridis"]
    top = max(np.nanpercentile(e.gfactor, 99) for e in ENTRIES if e.gfactor is not None)
    assert len(noise) == 2
    assert set(noise) == {(1, 3)}
    assert 2 < top <= 3


def test_numbers_are_written_beside_what_they_count() -> None:
    one, mask = ENTRIES[0], ENTRIES[0].mask
    assert one.gfactor is not None
    written = texts(masks_explained([one, replace(ENTRIES[2], sidelobe=0.5)]))
    assert f"{mask.sum()} of 126 points, R = {126 / mask.sum():.2f}" in written
    inside = one.gfactor[:, 2:]
    assert f"mean {inside.mean():.2f}, 95th percentile {np.percentile(inside, 95):.2f}" in written
    assert "largest side lobe -6.0 dB (0.50)" in written
    assert "coils not known" in written


@pytest.mark.parametrize(("sidelobe", "text"), [(1.0, "0.0 dB (1.00)"), (0.0, "none")])
def test_a_full_ghost_and_no_ghost_are_said_plainly(sidelobe: float, text: str) -> None:
    figure = masks_explained([replace(ENTRIES[0], sidelobe=sidelobe)])
    assert f"largest side lobe {text}" in texts(figure)


def test_densities_are_drawn_alone_and_together() -> None:
    *rows, together = lines(masks_explained(ENTRIES))
    known = [np.isfinite(entry.density[1]) for entry in ENTRIES]
    for i, row in enumerate(rows):
        assert len(row) == len(ENTRIES) + 1
        np.testing.assert_array_equal(row[-1].get_ydata(), ENTRIES[i].density[1][known[i]])
    for line, entry, inside in zip(together, ENTRIES, known, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), entry.density[0][inside])
        np.testing.assert_array_equal(line.get_ydata(), entry.density[1][inside])
        assert line.get_label() == entry.name


def test_many_masks_keep_apart() -> None:
    entries = [facts(f"a mask with quite a long name, number {i}", i) for i in range(12)]
    figure = masks_explained(entries)
    *_, together = lines(figure)
    assert len({(line.get_color(), line.get_linestyle()) for line in together}) == 12
    assert is_laid_out(figure)


def test_without_coils_there_is_no_column_for_them() -> None:
    entries = [facts("one", coils=False), facts("two", 1, coils=False)]
    figure = masks_explained(entries)
    assert "noise" not in texts(figure)
    assert figure.get_figwidth() < masks_explained(ENTRIES).get_figwidth()
    assert len(pictures(figure)) == 4
    assert is_laid_out(figure)
    assert "Noise amplification" not in caption(entries)
    assert "Noise amplification" in caption(ENTRIES)
    assert "\n" not in caption(ENTRIES)


@pytest.mark.parametrize(("shape", "turns"), [((3, 40), 1), ((145, 30), 0), ((1, 600), 0)])
def test_odd_planes_and_voxels_fit(shape: tuple[int, int], turns: int) -> None:
    entries = [facts("one", shape=shape), facts("two", 1, shape=shape)]
    assert is_laid_out(masks_explained(entries, voxel_size=(2, 0.9), quarter_turns=turns))


def test_an_empty_object_has_no_number(tmp_path: Path) -> None:
    nothing = replace(ENTRIES[0], gfactor=np.full(SHAPE, np.nan))
    figure = masks_explained([nothing])
    assert "no object" in texts(figure)
    canvas.save(figure, tmp_path / "why.png")
    assert (tmp_path / "why.png").stat().st_size > 0
