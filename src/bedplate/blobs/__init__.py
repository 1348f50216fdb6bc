"""Artifacts by digest, on disk or in an object store."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bedplate.blobs.port import Blobs

__all__ = ["Blobs", "open"]


def open(location: Path | str, options: Mapping[str, Any] | None = None) -> Blobs:
    """The artifacts at a folder or an object store's address (``s3://bucket/prefix``).

    Raises:
        UnavailableError: the address cannot be used.
    """
    if isinstance(location, str) and "://" in location:
        from bedplate.blobs.objects import ObjectBlobs

        return ObjectBlobs(location, options)
    from bedplate.blobs.disk import DiskBlobs

    return DiskBlobs(Path(location))
