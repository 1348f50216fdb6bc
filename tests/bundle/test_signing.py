"""Our signatures and those of OpenSSF model-signing are the same: each side accepts what the other made."""

import json
import subprocess
import sys
from base64 import b64decode, b64encode

import pytest

from bedplate import bundle
from bedplate.bundle.keys import load_private, load_public
from bedplate.bundle.signing import signature_path, verify_signature
from bedplate.errors import HomeError, IntegrityError
from tests.bundle import sample


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
    return sample.signed(tmp_path_factory.mktemp("bundle"))


def test_the_stock_library_accepts_ours(signed):
    from model_signing import hashing, verifying

    everything = hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False)

    verifier = verifying.Config().set_hashing_config(everything).use_elliptic_key_verifier(public_key=signed.public)

    verifier.verify(signed.folder, signature_path(signed.folder))


def test_we_accept_what_the_stock_command_signed(signed, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights.json").write_bytes(b"[1]")
    command = [sys.executable, "-m", "model_signing", "sign", "key", str(folder), "--private_key", str(signed.private)]
    subprocess.run(
        [*command, "--signature", str(signature_path(folder)), "--no-ignore-git-paths"], check=True, capture_output=True
    )

    assert verify_signature(folder, signed.public).keys() == {"weights.json"}


@pytest.mark.parametrize("ignored", [{"ignore_git_paths": True}, {"paths": ["notes.txt"], "ignore_git_paths": False}])
def test_a_signature_that_leaves_files_out_is_refused(signed, tmp_path, ignored):
    from model_signing import hashing, signing

    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights.json").write_bytes(b"[1]")
    config = hashing.Config().set_ignored_paths(**{"paths": [], **ignored})
    signer = signing.Config().set_hashing_config(config).use_elliptic_key_signer(private_key=signed.private)
    signer.sign(folder, signature_path(folder))

    with pytest.raises(IntegrityError, match="leaves out files"):
        verify_signature(folder, signed.public)


def _payload(signature: dict) -> dict:
    return json.loads(b64decode(signature["dsseEnvelope"]["payload"]))


def test_an_edited_statement_does_not_verify(signed, tmp_path):
    """Every byte of the payload is signed: also those that would make an edited file match."""
    signature = json.loads(signature_path(signed.folder).read_bytes())
    statement = _payload(signature)
    statement["predicate"]["resources"].pop()
    signature["dsseEnvelope"]["payload"] = b64encode(json.dumps(statement).encode()).decode()
    folder = tmp_path / "model"
    folder.mkdir()
    signature_path(folder).write_text(json.dumps(signature))

    with pytest.raises(IntegrityError, match="does not match what it signs"):
        verify_signature(folder, signed.public)


def test_signing_again_keeps_the_signature(signed):
    before = signature_path(signed.folder).read_bytes()

    bundle.sign(signed.folder, signed.private, signed.public)

    assert signature_path(signed.folder).read_bytes() == before


def test_the_private_key_is_for_its_owner_alone(tmp_path):
    private, public = tmp_path / "signing.key", tmp_path / "signing.pub"
    bundle.make_key(private, public)

    assert private.stat().st_mode & 0o777 == 0o600
    assert load_private(private).public_key() == load_public(public)
    private.chmod(0o640)
    with pytest.raises(HomeError, match="can be read by others"):
        load_private(private)


def test_a_key_is_made_once(tmp_path):
    private, public = tmp_path / "signing.key", tmp_path / "signing.pub"
    bundle.make_key(private, public)
    first = private.read_bytes()
    public.unlink()

    bundle.make_key(private, public)

    assert private.read_bytes() == first
    assert load_private(private).public_key() == load_public(public)


def test_a_broken_key_says_so(tmp_path):
    (tmp_path / "signing.key").write_text("not a key")
    (tmp_path / "signing.key").chmod(0o600)

    with pytest.raises(HomeError, match="cannot be read"):
        load_private(tmp_path / "signing.key")


def test_a_replica_verifies_without_the_signing_library(signed):
    """Importing it costs a second and 500 modules."""
    code = (
        "import sys; from pathlib import Path; from bedplate import bundle;"
        "bundle.verify(Path(sys.argv[1]), public_key=Path(sys.argv[2]));"
        "heavy = {'model_signing', 'sigstore', 'pyarrow', 'numpy', 'cyclonedx', 'onnx'} & sys.modules.keys();"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, str(signed.folder), str(signed.public)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
