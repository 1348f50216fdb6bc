"""Where rows come from: files, folders of images, databases, the web, object stores; one port for all of them.

==========================  ============================================================================================
:mod:`.port`                :class:`Opened`: what an ingestion sees of a source: columns, total, rows, digest
:mod:`.places`              from the words of a use case to files on this disk: local ones, those of a package, HTTP, S3
:mod:`.databases`           SQL databases, and what programs give row by row (dlt): written to a file as it comes
==========================  ============================================================================================

Whoever made a file may have made it to do harm: it is fetched by this process and never parsed in it, but by
:mod:`bedplate.data.parsing` in a limited one.
"""

from bedplate.data.parsing.values import BadLine, Chunk
from bedplate.data.sources.places import opened
from bedplate.data.sources.port import Opened, Reach

__all__ = ["BadLine", "Chunk", "Opened", "Reach", "opened"]
