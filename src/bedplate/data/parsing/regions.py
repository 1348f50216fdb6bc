"""Text that is written into pixels: the rectangles that a file declares, made black before anybody sees the rest."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from bedplate.usecase.types import Region

BURNED = "may show text in its pixels: its attributes do not say NO, and no region is declared for its kind"
SAID = "shows text in its pixels, as its attributes say, and no box is declared for its kind or found in it"
TOO_MUCH = "has more pixels than text is looked for in"
PALETTE = "has colours by a palette, in which text is not looked for"


class WithheldError(Exception):
    """A picture that may not come in, with a reason of this module."""


def boxes(
    regions: Sequence[Region],
    *,
    rows: int,
    columns: int,
    modality: str = "",
    manufacturer: str = "",
    burned: str = "",
    seen: Sequence[tuple[int, int, int, int]] | None = None,
) -> list[tuple[int, int, int, int]]:
    """What is to be made black in a picture of this kind: left, top, right, bottom, inside it.

    ``burned`` is what (0028,0301) says; ``seen`` is where text was found, None where it was not looked for.

    Raises:
        WithheldError: it may show text, and nobody has said where.
    """
    given = {"rows": rows, "columns": columns, "modality": modality, "manufacturer": manufacturer}
    fitting = [
        region for region in regions if all(getattr(region, name) in (None, value) for name, value in given.items())
    ]
    found = [(b[0], b[1], min(b[2], columns), min(b[3], rows)) for region in fitting for b in region.boxes]
    found = [box for box in found if box[0] < box[2] and box[1] < box[3]]
    found += seen or ()
    if not found and burned == "YES":
        raise WithheldError(SAID)
    if not fitting and seen is None and burned != "NO":
        raise WithheldError(BURNED)
    return found


def black(pixels: Any, found: Iterable[tuple[int, int, int, int]], data: Any) -> Any:
    """The pixels of a DICOM file with black boxes, in every frame, and without bits that are no part of a value.

    ``pixels`` are (frames,) rows, columns (, samples) in the order that the file's attributes give.
    """
    stored, signed = int(data.get("BitsStored") or 0), bool(data.get("PixelRepresentation"))
    made = np.array(pixels, order="C")
    if np.issubdtype(made.dtype, np.integer) and 0 < stored < made.dtype.itemsize * 8:
        # Overlays could lie in the bits above: they are drawings as well, and their attributes are gone.
        unused = made.dtype.itemsize * 8 - stored
        made = np.left_shift(made, unused) >> unused
    whole = np.issubdtype(made.dtype, np.integer) and stored
    lowest = -(1 << stored - 1) if signed and whole else 0
    dark: float = lowest
    if str(data.get("PhotometricInterpretation")) == "MONOCHROME1" and whole:
        dark = lowest + (1 << stored) - 1  # its greatest value is black
    for left, top, right, bottom in found:
        planes(made, data)[:, top:bottom, left:right] = dark
    return made


def planes(pixels: Any, data: Any) -> Any:
    """The same pixels as frames, rows, columns and samples."""
    samples, frames = int(data.get("SamplesPerPixel") or 1), int(data.get("NumberOfFrames") or 1)
    return pixels.reshape(frames, int(data.Rows), int(data.Columns), samples)
