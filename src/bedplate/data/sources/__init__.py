"""Where rows come from: files, folders of images, databases, the web, object stores; one port for all of them.

==========================  ============================================================================================
:mod:`.port`                :class:`Opened`: what an ingestion sees of a source: columns, total, rows, digest
:mod:`.places`              from the words of a use case to files on this disk: local ones, those of a package, HTTP, S3
:mod:`.databases`           SQL databases, and what programs give row by row (dlt): written to a file as it comes
:mod:`.formats`             Parquet, CSV, JSON and Arrow: read in a limited process only
:mod:`.pictures`            images and DICOM: likewise
:mod:`bedplate.data.parser`  the entry of that process (its package must load nothing)
==========================  ============================================================================================

Whoever made a file may have made it to do harm: it is fetched by this process and never parsed in it.
"""

from bedplate.data.sources.places import Reach, opened
from bedplate.data.sources.port import BadLine, Chunk, Opened

__all__ = ["BadLine", "Chunk", "Opened", "Reach", "opened"]
