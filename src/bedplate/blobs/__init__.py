"""Artifacts by digest, on disk or in an object store."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bedplate.blobs.incoming import Incoming
from bedplate.blobs.port import Blobs, Content

__all__ = ["Blobs", "Content", "Incoming", "open"]


def open(location: Path | str, options: Mapping[str, Any] | None = None, *, spool: Path | None = None) -> Blobs:
    """The artifacts at a folder or an object store's address (``s3://bucket/prefix``).

    ``spool`` is a folder for content on its way to an object store; a folder of artifacts needs none.

    Raises:
        UnavailableError: the address cannot be used.
    """
    if isinstance(location, str) and "://" in location:
        from bedplate.blobs.objects import ObjectBlobs

        return ObjectBlobs(location, options, spool)
    from bedplate.blobs.disk import DiskBlobs

    return DiskBlobs(Path(location))
