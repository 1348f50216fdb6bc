"""Checkpoints and signatures in the forms of C2SP (signed-note, tlog-checkpoint), which other tools can check."""

import base64
import binascii
import hashlib
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from bedplate.errors import IntegrityError

_ED25519 = b"\x01"
_DASH = "\N{EM DASH} "


class Checkpoint(NamedTuple):
    """What is signed: which log, how many entries, which root."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The signed text, with its final line break."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


class Verifier:
    """A public key with its name, written ``<name>+<key id>+<base64>``."""

    def __init__(self, text: str) -> None:
        try:
            # base64 may itself hold a plus sign, a name may not.
            self.name, identifier, key = text.strip().split("+", 2)
            raw = base64.b64decode(key, validate=True)
            if raw[:1] != _ED25519 or _key_id(self.name, raw[1:]).hex() != identifier:
                raise ValueError
            self._key = Ed25519PublicKey.from_public_bytes(raw[1:])
        except (ValueError, binascii.Error) as error:
            raise IntegrityError(
                "this is not a public key of a ledger", fix="take keys/ledger.pub of the home"
            ) from error
        self._id, self.text = bytes.fromhex(identifier), text.strip()

    def open(self, note: str, where: str) -> Checkpoint:
        """The checkpoint in a signed note.

        Raises:
            IntegrityError: it is malformed, or not signed by this key.
        """
        text, separator, signatures = note.rpartition("\n\n")
        if not separator or not signatures.endswith("\n"):
            raise IntegrityError("this is not a signed checkpoint", where=where)
        text += "\n"
        for line in signatures.split("\n")[:-1]:
            name, _, value = line.removeprefix(_DASH).partition(" ")
            if not line.startswith(_DASH) or name != self.name:
                continue
            raw = _decode(value)
            if raw[:4] != self._id:
                continue
            try:
                self._key.verify(raw[4:], text.encode())
            except InvalidSignature as error:
                raise IntegrityError("the signature of the checkpoint is wrong", where=where) from error
            return _parse(text, where)
        raise IntegrityError(f"the checkpoint is not signed by {self.name}", where=where)


class Signer:
    """The private key of a ledger, and its name, which is the origin of its checkpoints."""

    def __init__(self, text: str, where: str = "") -> None:
        try:
            mark, key, self.name, identifier, value = text.strip().split("+", 4)
            raw = base64.b64decode(value, validate=True)
            self._key = Ed25519PrivateKey.from_private_bytes(raw[1:])
            public = self._key.public_key().public_bytes_raw()
            if (mark, key, raw[:1]) != ("PRIVATE", "KEY", _ED25519) or _key_id(self.name, public).hex() != identifier:
                raise ValueError
        except (ValueError, binascii.Error) as error:
            raise IntegrityError(
                "this is not the key of a ledger", where=where, fix="restore it from a backup"
            ) from error
        self._id = bytes.fromhex(identifier)
        self.public = f"{self.name}+{identifier}+{base64.b64encode(_ED25519 + public).decode()}"

    @classmethod
    def load(cls, path: Path) -> "Signer":
        """The key in a file.

        Raises:
            IntegrityError: the file is missing or holds something else.
        """
        try:
            return cls(path.read_text(), str(path))
        except OSError as error:
            raise IntegrityError("the key of the ledger cannot be read", where=str(path), fix="restore it") from error

    def sign(self, size: int, root: bytes) -> str:
        """The signed checkpoint of a tree."""
        text = Checkpoint(self.name, size, root).text()
        signature = base64.b64encode(self._id + self._key.sign(text.encode())).decode()
        return f"{text}\n{_DASH}{self.name} {signature}\n"


def new_key(name: str) -> str:
    """The text of a new private key; ``name`` holds neither blanks nor plus signs."""
    key = Ed25519PrivateKey.generate()
    identifier = _key_id(name, key.public_key().public_bytes_raw()).hex()
    value = base64.b64encode(_ED25519 + key.private_bytes_raw()).decode()
    return f"PRIVATE+KEY+{name}+{identifier}+{value}\n"


def _key_id(name: str, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + public).digest()[:4]


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""


def _parse(text: str, where: str) -> Checkpoint:
    lines = text.split("\n")
    if len(lines) < 4 or not lines[1].isdigit() or str(int(lines[1])) != lines[1] or len(_decode(lines[2])) != 32:
        raise IntegrityError("the checkpoint is malformed", where=where)
    return Checkpoint(lines[0], int(lines[1]), _decode(lines[2]))
