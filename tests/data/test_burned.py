"""Text in pixels: how much of it is found, and how much else is made black, on pictures whose text is known."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bedplate.data.parsing import burned, regions
from bedplate.errors import MissingExtraError

image = pytest.importorskip("PIL.Image")
draw = pytest.importorskip("PIL.ImageDraw")
font = pytest.importorskip("PIL.ImageFont")
pydicom = pytest.importorskip("pydicom")

try:
    burned.model()
    MODEL = True
except MissingExtraError:
    MODEL = False
needs_model = pytest.mark.skipif(not MODEL, reason="pip install 'bedplate[ocr]'")

pytestmark = pytest.mark.slow
Box = burned.Box
TEXTS = (
    "DOE^JANE",
    "MRN 4471123",
    "12/03/1974",
    "St. Mary Hospital",
    "F 047Y",
    "Dr. Miller",
    "ACC 77812-A",
    "10:15:30",
)
COVERED = 0.98
"""The share of a box that must be black for its text to be gone."""
FORMS = [
    ("MONOCHROME2", 8, False), ("MONOCHROME1", 8, False), ("MONOCHROME2", 12, False), ("MONOCHROME1", 12, False),
    ("MONOCHROME2", 16, False), ("MONOCHROME2", 16, True), ("RGB", 8, False),
]  # fmt: skip


def body(rng: random.Random, rows: int, columns: int) -> Any:
    """Soft shapes with noise, from 0 to 1: no text."""
    down, across = np.mgrid[:rows, :columns]
    made = np.zeros((rows, columns))
    for _ in range(8):
        x, y, wide, high = (rng.uniform(a, b) for a, b in ((0, columns), (0, rows), (30, 200), (30, 200)))
        made += rng.uniform(0.1, 0.5) * np.exp(-(((across - x) / wide) ** 2) - ((down - y) / high) ** 2)
    noise = np.random.default_rng(rng.randrange(1 << 30)).normal(0, 0.02, made.shape)
    return np.clip(made + noise, 0, 1) * 0.7


def written(rng: random.Random, pixels: Any, size: int, contrast: float, count: int = 3) -> tuple[Any, list[Box]]:
    """The pixels with texts of this size, so much brighter than what is under them, and where they stand."""
    rows, columns = pixels.shape
    layer = image.new("L", (columns, rows))
    pen, letters, boxes = draw.Draw(layer), font.load_default(size), []
    for place in range(count):
        text = rng.choice(TEXTS)
        left, top, right, bottom = (int(each) for each in pen.textbbox((0, 0), text, font=letters))
        band = rows // count
        x = rng.randrange(0, max(1, columns - (right - left)))
        y = place * band + rng.randrange(0, max(1, band - (bottom - top)))
        pen.text((x - left, y - top), text, fill=255, font=letters)
        boxes.append((x, y, x + right - left, y + bottom - top))
    mask = np.asarray(layer) / 255
    return pixels * (1 - mask) + np.clip(pixels + contrast, 0, 1) * mask, boxes


def stored(pixels: Any, kind: str, bits: int, signed: bool) -> tuple[Any, Any]:
    """What a DICOM file with these attributes holds of them."""
    data = pydicom.Dataset()
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = (3 if kind == "RGB" else 1), kind
    data.BitsStored, data.PixelRepresentation = bits, int(signed)
    values = (1 - pixels if kind == "MONOCHROME1" else pixels) * ((1 << bits) - 1) - ((1 << bits - 1) if signed else 0)
    made = values.astype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")
    return (np.stack([made, made // 2, made], axis=-1) if kind == "RGB" else made), data


def black(found: list[Box], shape: tuple[int, ...]) -> Any:
    made = np.zeros(shape[:2], dtype=bool)
    for left, top, right, bottom in found:
        made[top:bottom, left:right] = True
    return made


def score(cases: list[tuple[Any, Any, list[Box]]]) -> tuple[float, float, float]:
    """The shares of texts that are gone, of what is black that is near a text, and of the rest that is black."""
    gone, total, near, dark, rest, lost = 0, 0, 0, 0, 0, 0
    for pixels, data, boxes in cases:
        mask = black(burned.find(regions.planes(pixels, data)), pixels.shape)
        grown = [(l - b + t, t - b + t, r + b - t, b + b - t) for l, t, r, b in boxes]  # noqa: E741  a line around it
        around = black([(max(0, l), max(0, t), r, b) for l, t, r, b in grown], pixels.shape)  # noqa: E741
        gone += sum(mask[t:b, l:r].mean() >= COVERED for l, t, r, b in boxes)  # noqa: E741
        total += len(boxes)
        near, dark = near + int((mask & around).sum()), dark + int(mask.sum())
        rest, lost = rest + int((~around).sum()), lost + int((mask & ~around).sum())
    return gone / max(1, total), near / max(1, dark), lost / max(1, rest)


def cases(sizes: tuple[int, ...], contrasts: tuple[float, ...], each: int) -> list[tuple[Any, Any, list[Box]]]:
    rng, made = random.Random(11), []
    for kind, bits, signed in FORMS:
        for size in sizes:
            for contrast in contrasts:
                for _ in range(each):
                    pixels, boxes = written(rng, body(rng, 512, 512), size, contrast)
                    made.append((*stored(pixels, kind, bits, signed), boxes))
    return made


@needs_model
@pytest.mark.parametrize(
    ("sizes", "contrasts", "each"),
    [
        ((8, 20), (0.3,), 1),
        pytest.param((8, 10, 12, 16, 24, 36), (0.15, 0.3, 0.6), 2, marks=pytest.mark.long),
    ],
)
def test_text_of_every_size_and_depth_is_found(sizes: tuple[int, ...], contrasts: tuple[float, ...], each: int) -> None:
    recall, precision, lost = score(cases(sizes, contrasts, each))
    print(f"recall {recall:.4f}, precision {precision:.4f}, lost {lost:.5f}")
    assert recall >= 0.98
    assert precision >= 0.95
    assert lost <= 0.005


@needs_model
def test_little_is_lost_where_there_is_no_text() -> None:
    rng = random.Random(4)
    plain = [(*stored(body(rng, 512, 512), kind, bits, signed), []) for kind, bits, signed in FORMS]
    _, _, lost = score(plain)
    assert lost <= 0.005


@needs_model
def test_small_text_of_a_large_picture_is_found_and_one_outlier_hides_none() -> None:
    rng = random.Random(8)
    pixels, boxes = written(rng, body(rng, 1700, 1400), 12, 0.5, count=4)
    values, data = stored(pixels * 0.03, "MONOCHROME2", 16, False)
    values[0, 0] = 65535
    recall, _, _ = score([(values, data, boxes)])
    assert recall == 1.0


@needs_model
def test_every_frame_is_looked_at_and_too_many_are_withheld() -> None:
    rng = random.Random(2)
    pixels, boxes = written(rng, body(rng, 400, 400), 16, 0.5, count=1)
    frames = np.stack([body(rng, 400, 400), pixels, body(rng, 400, 400)])[..., None]
    mask = black(burned.find(frames), (400, 400))
    (left, top, right, bottom) = boxes[0]
    assert mask[top:bottom, left:right].all()
    with pytest.raises(regions.WithheldError, match="more pixels"):
        burned.find(np.zeros((burned.MOST + 1, 8, 8, 1)))


def test_without_the_model_it_is_said_what_brings_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="finds text in pixels"):
        burned.model()


@needs_model
def test_files_come_in_with_their_text_black(tmp_path: Path) -> None:
    """In the process that parses them, confined and within its memory."""
    from bedplate.data.parsing.profile import Profile
    from bedplate.data.parsing.values import Chunk
    from bedplate.data.sources.port import Opened
    from bedplate.usecase.types import Deidentify

    rng = random.Random(3)
    pixels, boxes = written(rng, body(rng, 1100, 1000), 20, 0.6)
    image.fromarray((pixels * 255).astype(np.uint8)).save(tmp_path / "a.png")
    image.fromarray((body(rng, 64, 64) * 255).astype(np.uint8)).save(tmp_path / "b.png")
    asked = Deidentify(profile="images", options=("clean-pixel-data",), text="find")
    paths = (tmp_path / "a.png", tmp_path / "b.png")
    source = Opened("images", "here", paths, profile=Profile(asked=asked, key=b"k" * 32))
    try:
        (chunk,) = source.read(["file", "width", "height", "pixels"])
    finally:
        source.close()
    assert isinstance(chunk, Chunk)
    first, second = chunk.table.to_pylist()
    assert "png" not in first["file"]
    made = np.frombuffer(first["pixels"], np.uint8).reshape(1100, 1000)
    assert all(made[top:bottom, left:right].max() == 0 for left, top, right, bottom in boxes)
    assert np.frombuffer(second["pixels"], np.uint8).max() > 0
