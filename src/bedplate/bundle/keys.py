"""The local signing key: P-256, as a PEM file that only its owner can read."""

import os
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bedplate.errors import HomeError, IntegrityError


def make_key(private: Path, public: Path) -> None:
    """Make a key pair, unless ``private`` exists already; ``public`` is written again from it when it is missing.

    ``private`` gets mode 0600 and is complete under its name from the first moment. Their folder MUST exist.

    Raises:
        HomeError: the private key is there and cannot be read.
    """
    if not private.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        encoded = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        _write_new(private, encoded, 0o600)
    if not public.exists():
        encoded = (
            load_private(private)
            .public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
        _write_new(public, encoded, 0o644)


def load_private(path: Path) -> ec.EllipticCurvePrivateKey:
    """The private key in ``path``.

    Raises:
        HomeError: it is missing, open to others, or no P-256 key.
    """
    try:
        mode = path.stat().st_mode
        if mode & 0o077:
            raise HomeError("the signing key can be read by others", where=str(path), fix=f"chmod 600 {path}")
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise HomeError(f"the signing key cannot be read: {error}", where=str(path), fix="restore a backup") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise HomeError("the signing key is not a P-256 key", where=str(path), fix="restore a backup")
    return key


def load_public(path: Path) -> ec.EllipticCurvePublicKey:
    """The public key in ``path``.

    Raises:
        IntegrityError: it is missing or no P-256 key, so nothing can be verified.
    """
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise IntegrityError(f"the public key cannot be read: {error}", where=str(path)) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise IntegrityError("the public key is not a P-256 key", where=str(path))
    return key


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Write ``path`` under its name only when it is complete and on disk; whoever comes second keeps the first."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        os.write(file, data)
        os.fsync(file)
    finally:
        os.close(file)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return
    finally:
        temporary.unlink()
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
