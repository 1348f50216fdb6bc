"""Pictures as rows that say nobody's name: what :mod:`.pictures` reads of a file, under a profile."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bedplate import extensions
from bedplate.data.parsing import burned, regions
from bedplate.data.parsing.dicom import Engine
from bedplate.data.parsing.profile import Profile
from bedplate.identifiers import code

UNREAD = "cannot be decoded"
REASONS = frozenset({UNREAD, regions.BURNED, regions.SAID, regions.TOO_MUCH, regions.PALETTE})
"""All that is said of a file that is no row: what a parser says may quote it."""


class Files:
    """The files of one data set, read under a profile."""

    def __init__(self, profile: Profile) -> None:
        self._profile, self._engine = profile, Engine(profile)
        self._regions = profile.asked.regions if "clean-pixel-data" in profile.asked.options else ()
        self._find = profile.asked.text == "find"
        if self._find:
            burned.model()
        warnings.simplefilter("ignore")  # pydicom warns of values by quoting them, and this process reads nothing else
        if profile.asked.profile == "dicom-basic":
            pydicom: Any = extensions.require("pydicom", "images")
            pydicom.config.logger.disabled = True

    def name(self, path: Path) -> str:
        """The pseudonym of a file: its name may be somebody's."""
        return code(self._profile.key, path.name) or ""

    def dicom(self, path: Path, names: Sequence[str], most: int) -> tuple[Any, Any]:
        """The data set of a DICOM file, de-identified, and its pixels where ``pixels`` is among ``names``.

        Raises:
            WithheldError: its pixels may show text.
            Exception: whatever pydicom raises of a damaged file.
        """
        import pydicom

        data = pydicom.dcmread(path, stop_before_pixels="pixels" not in names)
        claimed = 1
        for keyword in ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel"):
            claimed *= int(data.get(keyword) or 1)
        if claimed > most:
            raise ValueError("it claims too many values")
        made = self._engine.of(data)
        if "pixels" not in names:
            return made, None
        pixels = data.pixel_array
        found = regions.boxes(
            self._regions,
            seen=self._seen(pixels, data) if self._find else None,
            rows=int(data.Rows),
            columns=int(data.Columns),
            modality=str(data.get("Modality") or ""),
            manufacturer=str(data.get("Manufacturer") or ""),
            burned=str(data.get("BurnedInAnnotation") or ""),
        )
        made.BurnedInAnnotation = "NO"
        return made, regions.black(pixels, found, data)

    def _seen(self, pixels: Any, data: Any) -> list[burned.Box]:
        if str(data.get("PhotometricInterpretation")) == "PALETTE COLOR":
            raise regions.WithheldError(regions.PALETTE)
        return burned.find(regions.planes(regions.black(pixels, (), data), data))

    def image(self, path: Path, names: Sequence[str], most: int) -> dict[str, Any]:
        """A row of another picture: nothing that stands beside its pixels is in it.

        Raises: as :meth:`dicom`, of Pillow.
        """
        from PIL import Image

        with Image.open(io.BytesIO(path.read_bytes())) as image:
            if image.width * image.height > most:
                raise ValueError("it claims too many pixels")
            row: dict[str, Any] = {
                "file": self.name(path),
                "format": image.format,
                "width": image.width,
                "height": image.height,
                "mode": image.mode,
                "metadata": None,
            }
            image.load()
            if "pixels" in names:
                seen = burned.find([_shown(image)]) if self._find else None
                for box in regions.boxes(self._regions, rows=image.height, columns=image.width, seen=seen):
                    image.paste(0, box)
                row["pixels"] = image.tobytes()
            return row


def _shown(image: Any) -> Any:
    """A picture of Pillow as numbers, rows and columns and samples."""
    import numpy as np

    if image.mode.startswith(("I", "F")):  # these are cut off above 255 where they are made colours
        return np.asarray(image, dtype=np.float32)[:, :, None]
    return np.asarray(image.convert("RGB"))
