"""A manifest, and a signed bundle to tamper with."""

from pathlib import Path
from typing import NamedTuple

from bedplate import bundle
from bedplate.bundle.manifest import Manifest
from bedplate.ids import Digest, digest_bytes
from bedplate.records import ModelSignature, TensorSpec

FILES = {"model.json": b'{"trees": [1, 2, 3]}', "index.json": b"[4, 5, 6]"}


def manifest(**changes) -> Manifest:
    """A manifest without files."""
    some = digest_bytes(b"evidence")
    fields = {
        "tenant": "default",
        "name": "retail",
        "version": 1,
        "workload": "recommender",
        "signature": ModelSignature(
            predictor="onnx", inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),), outputs=()
        ),
        "data": (),
        "code_digest": some,
        "environment_digest": some,
        "training": some,
        "gates": some,
        "created": "2026-11-24T09:00:00.000000Z",
    }
    return Manifest(**fields | changes)


class Signed(NamedTuple):
    """A signed bundle on disk and its keys."""

    folder: Path
    digest: Digest
    private: Path
    public: Path

    def verify(self):
        return bundle.verify(self.folder, public_key=self.public, digest=self.digest)


def signed(at: Path) -> Signed:
    """A signed bundle below ``at``."""
    private, public = at / "signing.key", at / "signing.pub"
    bundle.make_key(private, public)
    digest = bundle.write(at / "bundles", FILES, manifest())
    folder = bundle.path_of(at / "bundles", digest)
    bundle.sign(folder, private, public)
    return Signed(folder, digest, private, public)
