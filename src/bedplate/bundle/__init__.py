"""What training emits, release signs and serving loads: manifest, formats, signature, bill of materials.

A bundle is a flat folder of files that run no code when loaded, unless its loader is a limited process, with a
manifest whose digest is the bundle's name, and a signature beside it. ``write`` makes one, ``sign`` signs it,
``verify`` checks everything before anything is loaded, and ``read`` gives back a file that is still what was verified.
"""

from bedplate.bundle.folder import path_of, read, verify, write
from bedplate.bundle.manifest import File, Manifest
from bedplate.bundle.signing import make_key, sign

__all__ = ["File", "Manifest", "make_key", "path_of", "read", "sign", "verify", "write"]
