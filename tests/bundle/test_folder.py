"""A bundle is written whole or not at all, and anything that happens to it afterwards is seen."""

import os
import shutil

import pytest

from bedplate import bundle
from bedplate.bundle.folder import files_changed
from bedplate.bundle.signing import signature_path
from bedplate.errors import InputError, IntegrityError, StorageError
from bedplate.ids import canonical, digest_bytes
from tests.bundle import sample


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return sample.signed(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def signed(original, tmp_path):
    """A copy to tamper with: signing takes the stock library a second."""
    shutil.copytree(original.folder.parent, tmp_path / "bundles")
    return original._replace(folder=tmp_path / "bundles" / original.folder.name)


def test_a_bundle_verifies_and_its_files_come_back(signed):
    manifest = signed.verify()

    assert manifest.digest == signed.digest
    assert {name: bundle.read(signed.folder, manifest, name) for name in manifest.files} == sample.FILES
    assert files_changed(signed.folder, manifest) == ()


def test_writing_again_gives_the_same_digest_and_leaves_the_folder_alone(signed):
    before = signed.folder.stat().st_mtime_ns

    assert bundle.write(signed.folder.parent, sample.FILES, sample.manifest()) == signed.digest
    assert signed.folder.stat().st_mtime_ns == before


def _append(folder):
    with (folder / "model.json").open("ab") as file:
        file.write(b" ")


def _flip(folder):
    data = bytearray((folder / "model.json").read_bytes())
    data[3] ^= 1
    (folder / "model.json").write_bytes(data)


def _git(folder):
    (folder / ".git").mkdir()
    (folder / ".git" / "evil.py").write_text("import os")


def _link(folder):
    target = folder.parent / "elsewhere.json"
    target.write_bytes((folder / "model.json").read_bytes())
    (folder / "model.json").unlink()
    (folder / "model.json").symlink_to(target)


def _swap(folder):
    a, b = folder / "model.json", folder / "index.json"
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)


TAMPERING = {
    "a file was edited": _flip,
    "a byte was appended": _append,
    "a file was added": lambda folder: (folder / "extra.json").write_bytes(b"{}"),
    "a hidden file was added": lambda folder: (folder / ".gitignore").write_bytes(b"*"),
    "a .git folder was added": _git,
    "an empty folder was added": lambda folder: (folder / "more").mkdir(),
    "a file was removed": lambda folder: (folder / "index.json").unlink(),
    "a file was renamed": lambda folder: (folder / "index.json").rename(folder / "other.json"),
    "two files were swapped": _swap,
    "a file became a link to the same bytes": _link,
    "a file became a pipe": lambda folder: ((folder / "index.json").unlink(), os.mkfifo(folder / "index.json")),
    "the manifest was edited": lambda folder: (folder / "bedplate.json").write_bytes(sample.manifest().encode()),
    "the manifest was removed": lambda folder: (folder / "bedplate.json").unlink(),
    "the signature was removed": lambda folder: signature_path(folder).unlink(),
    "the signature was emptied": lambda folder: signature_path(folder).write_bytes(b""),
    "the signature is no signature": lambda folder: signature_path(folder).write_bytes(b"{}"),
}


@pytest.mark.parametrize("tampering", TAMPERING.values(), ids=TAMPERING.keys())
def test_any_change_is_refused(signed, tampering):
    tampering(signed.folder)

    with pytest.raises(IntegrityError):
        signed.verify()


def test_an_older_approved_bundle_does_not_pass_for_the_one_that_is_meant(signed):
    with pytest.raises(IntegrityError, match="this is bundle"):
        bundle.verify(signed.folder, public_key=signed.public, digest=digest_bytes(b"the new one"))


def test_another_key_is_refused(signed, tmp_path):
    bundle.make_key(tmp_path / "other.key", tmp_path / "other.pub")

    with pytest.raises(IntegrityError, match="signed with another key"):
        bundle.verify(signed.folder, public_key=tmp_path / "other.pub")


def test_a_signature_of_another_bundle_is_refused(signed):
    other = bundle.write(signed.folder.parent, {"model.json": b"[]"}, sample.manifest())
    folder = bundle.path_of(signed.folder.parent, other)
    shutil.copy(signature_path(signed.folder), signature_path(folder))

    with pytest.raises(IntegrityError, match="not what was signed"):
        bundle.verify(folder, public_key=signed.public)


def test_a_file_that_changes_after_verification_is_not_loaded(signed):
    manifest = signed.verify()
    _flip(signed.folder)

    with pytest.raises(IntegrityError, match="changed since it was verified"):
        bundle.read(signed.folder, manifest, "model.json")
    assert files_changed(signed.folder, manifest) == ("model.json",)


def test_a_signed_file_that_runs_code_is_refused_all_the_same(tmp_path):
    """Whoever holds the key still cannot make a replica load a pickle."""
    private, public = tmp_path / "signing.key", tmp_path / "signing.pub"
    bundle.make_key(private, public)
    pickle = b"\x80\x04K\x01."
    entry = bundle.File(digest=digest_bytes(pickle), size=len(pickle), format="json")
    manifest = sample.manifest(files={"model.json": entry})
    folder = tmp_path / "forged"
    folder.mkdir()
    (folder / "model.json").write_bytes(pickle)
    (folder / "bedplate.json").write_bytes(manifest.encode())
    bundle.sign(folder, private, public)

    with pytest.raises(IntegrityError, match="a pickle"):
        bundle.verify(folder, public_key=public)


def test_a_manifest_has_one_text(tmp_path):
    private, public = tmp_path / "signing.key", tmp_path / "signing.pub"
    bundle.make_key(private, public)
    folder = tmp_path / "spaced"
    folder.mkdir()
    (folder / "bedplate.json").write_bytes(canonical(sample.manifest()).replace(b",", b", "))
    bundle.sign(folder, private, public)

    with pytest.raises(IntegrityError, match="canonical"):
        bundle.verify(folder, public_key=public)


@pytest.mark.parametrize(
    "name", ["../up.json", "a/b.json", "", ".hidden", "UPPER.json", "a..json", "bedplate.json", "é"]
)
def test_names_are_flat(tmp_path, name):
    with pytest.raises(InputError):
        bundle.write(tmp_path / "bundles", {name: b"{}"}, sample.manifest())

    assert not (tmp_path / "bundles").exists()


def test_nothing_is_left_when_writing_fails(tmp_path):
    bundles = tmp_path / "bundles"
    bundles.write_text("a file where the folder should be")

    with pytest.raises(StorageError, match="cannot be written"):
        bundle.write(bundles, sample.FILES, sample.manifest())

    assert os.listdir(tmp_path) == ["bundles"]
