"""What several benchmarks draw: images of one slice by many methods, and their errors."""

import io
from pathlib import Path

from PIL import Image

from kscout.atomic import atomic_path
from kscout.report import Array
from kscout.report.canvas import add_picture, grey_scale, new_figure, white, write

GAIN = 8
"""Of the error maps."""

Images = dict[str, Array]
"""By method, the reference first: ``(y, x)``."""


def draw(images: Images, path: Path, height: int = 184) -> None:
    """Image, detail and error of every method beside the reference, in few colours to be small."""
    reference = next(iter(images.values()))
    size = (height, height * reference.shape[1] // reference.shape[0])
    top, left, head = white(reference), 76, 44
    figure = new_figure(left + len(images) * (size[1] + 4), head + 3 * (size[0] + 4))
    for row, name in enumerate(("image", "detail", f"error x{GAIN}")):
        middle = head + row * (size[0] + 4) + size[0] / 2
        write(figure, left - 6, middle, name, ha="right", va="center")
    detail = tuple(slice(n * 3 // 8, n * 5 // 8) for n in reference.shape)
    for column, (name, image) in enumerate(images.items()):
        x = left + column * (size[1] + 4)
        boxes = [(x, head + row * (size[0] + 4), size[1], size[0]) for row in range(3)]
        error = abs(image - reference)
        nrmse = (error**2).sum() ** 0.5 / (reference**2).sum() ** 0.5
        title = name if column == 0 else f"{name}\n{nrmse:.3f}"
        write(figure, x + size[1] / 2, head - 4, title, fontsize=8)
        add_picture(figure, boxes[0], image, **grey_scale(top))
        add_picture(figure, boxes[1], image[detail], **grey_scale(top))
        if column:
            add_picture(figure, boxes[2], error, cmap="inferno", vmin=0, vmax=top / GAIN)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=100)
    with atomic_path(path) as temporary, Image.open(drawn) as picture:
        picture.convert("RGB").quantize(112).save(temporary, "PNG", optimize=True)
