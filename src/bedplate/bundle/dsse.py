"""DSSE envelopes (github.com/secure-systems-lab/dsse, protocol 1.0.2) in Sigstore bundles, signed with a local key.

The bundle is the form that OpenSSF model-signing writes and reads, so that its stock tool verifies what we sign.
"""

import base64
import binascii
import hashlib
from typing import Annotated, Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bedplate.errors import IntegrityError
from bedplate.ids import canonical

PAYLOAD_TYPE = "application/vnd.in-toto+json"
_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_ONE = msgspec.Meta(min_length=1, max_length=1)


class _Signature(msgspec.Struct):
    sig: str


class _Envelope(msgspec.Struct, rename="camel"):
    payload: str
    payload_type: str
    signatures: Annotated[tuple[_Signature, ...], _ONE]


class _PublicKey(msgspec.Struct):
    hint: str = ""


class _Material(msgspec.Struct, rename="camel"):
    public_key: _PublicKey


class _Bundle(msgspec.Struct, rename="camel"):
    media_type: str
    verification_material: _Material
    dsse_envelope: _Envelope


def sign(payload: dict[str, Any], key: ec.EllipticCurvePrivateKey) -> bytes:
    """The Sigstore bundle over ``payload`` in canonical JSON, signed with ``key``."""
    raw = canonical(payload)
    signature = key.sign(_pre_authentication(raw), ec.ECDSA(hashes.SHA256()))
    return canonical(
        {
            "mediaType": _MEDIA_TYPE,
            "verificationMaterial": {"publicKey": {"hint": _hint(key.public_key())}, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": base64.b64encode(raw).decode(),
                "payloadType": PAYLOAD_TYPE,
                "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
            },
        }
    )


def verify(data: bytes, key: ec.EllipticCurvePublicKey, where: str) -> bytes:
    """The payload of a Sigstore bundle, after its signature was verified with ``key``.

    Raises:
        IntegrityError: the bundle is malformed, made with another key, or the signature does not match.
    """
    try:
        bundle = msgspec.json.decode(data, type=_Bundle)
        envelope = bundle.dsse_envelope
        payload = base64.b64decode(envelope.payload, validate=True)
        signature = base64.b64decode(envelope.signatures[0].sig, validate=True)
    except (msgspec.DecodeError, binascii.Error) as error:
        raise IntegrityError(f"the signature file is malformed: {error}", where=where) from error
    if bundle.media_type != _MEDIA_TYPE or envelope.payload_type != PAYLOAD_TYPE:
        raise IntegrityError("the signature file is of another kind", where=where)
    if bundle.verification_material.public_key.hint != _hint(key):
        raise IntegrityError("it was signed with another key", where=where, fix="verify with the key that signed it")
    try:
        key.verify(signature, _pre_authentication(payload), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise IntegrityError("the signature does not match what it signs", where=where) from error
    return payload


def _pre_authentication(payload: bytes) -> bytes:
    """What is signed: the payload with its type and lengths, so that neither can be read as the other (DSSE PAE)."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def _hint(key: ec.EllipticCurvePublicKey) -> str:
    """Which key signed: SHA-256 of its PEM, as model-signing computes it."""
    encoded = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(encoded).hexdigest()
