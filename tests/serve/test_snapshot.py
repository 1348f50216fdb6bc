"""The signed file of keys and policies: what was signed is read, and nothing else ever is."""

import hashlib
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from bedplate.errors import IntegrityError
from bedplate.policy.values import Principal
from bedplate.serve import snapshot
from bedplate.serve.snapshot import Key

TOKEN = "bp_abc_secret"
KEYS = {snapshot.name_of_token(TOKEN): Key(principal=Principal(kind="Service", id="s", name="s", groups=("callers",)))}


@pytest.fixture(scope="module")
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


@pytest.fixture(scope="module")
def signed(key: Ed25519PrivateKey, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "access.json"
    snapshot.write(path, snapshot.new(KEYS, ("permit (principal, action, resource);",)), key)
    return path


def test_what_was_written_is_read(key: Ed25519PrivateKey, tmp_path: Path) -> None:
    path, given = tmp_path / "access.json", snapshot.new(KEYS, ("text",))
    snapshot.write(path, given, key)

    assert snapshot.read(path, key.public_key()) == given
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_another_homes_signature_is_refused(key: Ed25519PrivateKey, signed: Path) -> None:
    with pytest.raises(IntegrityError, match="not signed by this home"):
        snapshot.read(signed, Ed25519PrivateKey.generate().public_key())


def test_a_missing_file_is_an_integrity_error(key: Ed25519PrivateKey, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="cannot be read"):
        snapshot.read(tmp_path / "none", key.public_key())


@given(data=st.data())
def test_one_changed_byte_is_refused(key: Ed25519PrivateKey, signed: Path, data: st.DataObject) -> None:
    """Every byte of the file is signed, is the signature, or is the frame that holds both."""
    original = signed.read_bytes()
    at = data.draw(st.integers(0, len(original) - 1))
    changed = bytearray(original)
    changed[at] ^= data.draw(st.integers(1, 255))
    path = signed.with_name("changed.json")
    path.write_bytes(changed)

    try:
        read = snapshot.read(path, key.public_key())
    except IntegrityError:
        return
    assert read == snapshot.read(signed, key.public_key())  # the case of a hexadecimal digit, or white space


@given(data=st.data())
def test_a_cut_file_is_refused(key: Ed25519PrivateKey, signed: Path, data: st.DataObject) -> None:
    original = signed.read_bytes()
    path = signed.with_name("cut.json")
    path.write_bytes(original[: data.draw(st.integers(0, len(original) - 1))])

    with pytest.raises(IntegrityError):
        snapshot.read(path, key.public_key())


def test_a_key_is_named_by_its_id_and_the_hash_of_its_secret() -> None:
    assert snapshot.name_of_token(TOKEN) == f"abc:{hashlib.sha256(b'secret').hexdigest()}"
    assert snapshot.name_of_token("bp_abc_secret_more") == snapshot.key_name(
        "abc", hashlib.sha256(b"secret_more").digest()
    )


@pytest.mark.parametrize("token", ["", "secret", "bp_abc", "bp_abc_" + "x" * 200])
def test_what_is_no_key_has_no_name(token: str) -> None:
    assert snapshot.name_of_token(token) == ""


@given(st.text())
def test_no_text_breaks_the_naming(token: str) -> None:
    assert isinstance(snapshot.name_of_token(token), str)


def test_the_key_is_made_once_and_kept_private(tmp_path: Path) -> None:
    private, public = tmp_path / "access.pem", tmp_path / "access.pub.pem"
    first = snapshot.make_key(private, public)

    assert snapshot.make_key(private, public).private_bytes_raw() == first.private_bytes_raw()
    assert snapshot.load_public_key(public) == first.public_key()
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(public.stat().st_mode) == 0o644
    public.unlink()
    snapshot.make_key(private, public)
    assert snapshot.load_public_key(public) == first.public_key()


def test_files_that_hold_another_key_or_none_are_refused(tmp_path: Path) -> None:
    private, public = tmp_path / "access.pem", tmp_path / "access.pub.pem"
    other = ec.generate_private_key(ec.SECP256R1())
    private.write_bytes(
        other.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(
        other.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    with pytest.raises(IntegrityError, match="Ed25519"):
        snapshot.make_key(private, public)
    with pytest.raises(IntegrityError, match="Ed25519"):
        snapshot.load_public_key(public)
    private.write_bytes(b"no key")
    public.write_bytes(b"no key")
    with pytest.raises(IntegrityError, match="cannot be read"):
        snapshot.make_key(private, public)
    with pytest.raises(IntegrityError, match="cannot be read"):
        snapshot.load_public_key(public)
