"""Text in pixels, found by a model that reads nothing: PP-OCRv6, of which only the part that finds lines is used.

What it finds on pictures whose text is known is measured: ``tests/data/test_burned.py``.
"""

import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from bedplate import extensions
from bedplate.data.parsing.regions import TOO_MUCH, WithheldError
from bedplate.errors import MissingExtraError

Box: TypeAlias = tuple[int, int, int, int]
_MODEL = Path("models", "PP-OCRv6_det_small.onnx")
TILE, OVERLAP = 960, 160
"""Pixels of a square that is looked at as it is, and by how many its neighbour begins before its end."""
SMALLEST = 736
"""A picture whose shorter side is less is looked at larger: letters of eight pixels are then found."""
SURE, LINE, FEWEST = 0.6, 0.85, 20
"""What the model must give a pixel to be of a line, what all of a line on average, and how many pixels a line has.

Lines of text get more than 0.92, also where they can hardly be seen; noise that the model takes for text up to 0.82.
"""
MOST = 128
"""Squares of one file that are looked at, as there are so many seconds for it."""
_MARGIN, _LEAST = 0.7, 4
_OUTLIERS = (0.5, 99.5)


def find(frames: Any) -> list[Box]:
    """Boxes of text: left, top, right, bottom, of all frames together.

    ``frames`` are (frames, rows, columns, samples) of numbers, a sample or three of them.

    Raises:
        MissingExtraError: the model is not installed.
        WithheldError: there are too many frames, or too large ones.
    """
    seen = [view for frame in frames for view in _views(frame)]
    if sum(len(list(_tiles(*view.shape[:2]))) for view in seen) > MOST:
        raise WithheldError(TOO_MUCH)
    return [box for view in seen for tile in _tiles(*view.shape[:2]) for box in _in_tile(view, *tile)]


def _views(frame: Any) -> Iterator[Any]:
    """A frame in the 256 steps of a screen: over its whole range, and without outliers where those leave little."""
    values = np.asarray(frame, dtype=np.float32)
    if values.shape[-1] == 1:
        values = np.repeat(values, 3, axis=-1)
    low, high = float(values.min()), float(values.max())
    yield _shown(values, low, high)
    inner = [float(each) for each in np.percentile(values, _OUTLIERS)]
    if (inner[1] - inner[0]) * 1.5 < high - low and inner[1] > inner[0]:
        yield _shown(values, *inner)


def _shown(values: Any, low: float, high: float) -> Any:
    return (np.clip((values - low) / max(high - low, 1e-6), 0, 1) * 255).astype(np.uint8)


def _tiles(rows: int, columns: int) -> Iterator[Box]:
    """Squares that cover a picture, and the whole of it: letters may be larger than a square."""
    yield 0, 0, columns, rows
    if max(rows, columns) <= TILE:
        return
    step = TILE - OVERLAP
    for top in range(0, max(1, rows - OVERLAP), step):
        for left in range(0, max(1, columns - OVERLAP), step):
            yield left, top, min(columns, left + TILE), min(rows, top + TILE)


def _in_tile(view: Any, left: int, top: int, right: int, bottom: int) -> Iterator[Box]:
    from PIL import Image
    from scipy import ndimage

    image = Image.fromarray(view[top:bottom, left:right])
    scale = max(1.0, SMALLEST / min(image.size))
    scale = min(scale, TILE / max(image.size)) if scale == 1 or max(image.size) * scale > 2 * TILE else scale
    width, height = (max(32, round(side * scale / 32) * 32) for side in image.size)
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)
    session, name = _session()
    (found,) = session.run(None, {name: (pixels / 127.5 - 1).transpose(2, 0, 1)[None]})
    across, down = image.width / width, image.height / height
    lines, _ = ndimage.label(found[0, 0] > SURE)
    sizes = np.bincount(lines.ravel())
    sure = np.bincount(lines.ravel(), weights=found[0, 0].ravel()) / np.maximum(sizes, 1)
    for line, (rows, columns) in enumerate(ndimage.find_objects(lines), 1):
        if sizes[line] < FEWEST or sure[line] < LINE:
            continue
        wide = _MARGIN * min(rows.stop - rows.start, columns.stop - columns.start) + _LEAST
        yield (
            left + max(0, int((columns.start - wide) * across)),
            top + max(0, int((rows.start - wide) * down)),
            min(right, left + int(np.ceil((columns.stop + wide) * across))),
            min(bottom, top + int(np.ceil((rows.stop + wide) * down))),
        )


@cache
def _session() -> tuple[Any, str]:
    runtime: Any = extensions.require("onnxruntime", "ocr")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = runtime.InferenceSession(model().read_bytes(), options, providers=["CPUExecutionProvider"])
    return session, session.get_inputs()[0].name


def model() -> Path:
    """The file of the model: only that of the package is read, none of its code is run.

    Raises:
        MissingExtraError: it is not installed.
    """
    found = importlib.util.find_spec("rapidocr")
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        if (Path(folder) / _MODEL).is_file():
            return Path(folder) / _MODEL
    raise MissingExtraError(
        "the model that finds text in pixels is needed here and not installed", fix="pip install 'bedplate[ocr]'"
    )
