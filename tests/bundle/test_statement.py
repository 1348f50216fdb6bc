"""A release statement binds one bundle to one environment, until a moment."""

from datetime import UTC, datetime

import pytest

from bedplate import bundle
from bedplate.bundle.statement import Release, sign_release, verify_release
from bedplate.errors import IntegrityError
from tests.bundle import sample

MANIFEST = sample.manifest(version=3)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    bundle.make_key(folder / "a.key", folder / "a.pub")
    bundle.make_key(folder / "b.key", folder / "b.pub")
    return folder


def release(**changes):
    fields = {"tenant": "default", "name": "retail", "version": 3, "digest": MANIFEST.digest, "environment": "dev"}
    return Release(**fields | changes)


def check(keys, statement: bytes, environment="dev", at=None, key="a.pub"):
    return verify_release(statement, public_key=keys / key, manifest=MANIFEST, environment=environment, at=at)


def test_it_lets_its_bundle_into_its_environment(keys):
    assert check(keys, sign_release(release(), keys / "a.key")) == release()


@pytest.mark.parametrize(
    "other", [{"tenant": "evil"}, {"name": "other"}, {"version": 2}, {"digest": sample.manifest().digest}]
)
def test_it_is_about_one_bundle(keys, other):
    with pytest.raises(IntegrityError, match="not this bundle"):
        check(keys, sign_release(release(**other), keys / "a.key"))


def test_it_is_about_one_environment(keys):
    with pytest.raises(IntegrityError, match="released to dev, not to production"):
        check(keys, sign_release(release(), keys / "a.key"), environment="production")


def test_it_ends(keys):
    statement = sign_release(release(expires="2026-12-01T00:00:00.000000Z"), keys / "a.key")

    assert check(keys, statement, at=datetime(2026, 11, 30, tzinfo=UTC)).version == 3
    with pytest.raises(IntegrityError, match="expired"):
        check(keys, statement, at=datetime(2026, 12, 1, tzinfo=UTC))


def test_another_key_cannot_release(keys):
    with pytest.raises(IntegrityError, match="another key"):
        check(keys, sign_release(release(), keys / "b.key"))


def test_a_model_signature_is_no_release(keys, tmp_path):
    signed = sample.signed(tmp_path)
    signature = signed.folder.with_name(f"{signed.folder.name}.sig.json").read_bytes()

    with pytest.raises(IntegrityError):
        verify_release(signature, public_key=signed.public, manifest=signed.verify(), environment="dev")
