"""What parses the files of sources: it runs in a limited process, and loads nothing that parsing does not need.

:mod:`.process` is the entry of that process, :mod:`.formats` and :mod:`.pictures` read the kinds, and :mod:`.values` is
what it says to :mod:`bedplate.data.sources.port`, which owns it and makes it of :mod:`.template`.
"""
