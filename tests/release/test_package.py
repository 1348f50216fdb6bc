"""Packaging: a signed bundle with a bill of materials, twice the same, and nothing for what the gates refused."""

import json
import subprocess
import sys

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from bedplate import bundle
from bedplate.bundle.signing import signature_path
from bedplate.errors import GateError, InputError, IntegrityError
from bedplate.ids import digest_bytes
from bedplate.records import GateReport, GateResult
from bedplate.release.package import Version, inspect, package
from tests.release import sample

REPORT = GateReport(
    results=(
        GateResult(gate="fairness", name="recall@20 on age=65+", verdict="insufficient_evidence", measured=None,
                   limit="> -0.02", reason="61 units; 200 are needed", waiver="wvr_1"),
    ),
    passed=True,
    summary="passed",
)  # fmt: skip
VERSION = Version(
    tenant="default",
    name="retail",
    version=4,
    training=sample.digest("training"),
    gates=sample.digest("gates"),
    created="2026-11-24T09:00:00.000000Z",
)


class Blobs:
    """Artifacts by digest, in memory."""

    def __init__(self, *files: bytes) -> None:
        self.files = {digest_bytes(data): data for data in files}

    def get(self, digest, /):
        return self.files[digest]


@pytest.fixture
def make(tmp_path):
    bundle.make_key(tmp_path / "signing.key", tmp_path / "signing.pub")
    loaded = sample.loaded(tmp_path)

    def run(data=b'{"trees": []}', report=REPORT, version=VERSION):
        training = sample.training()
        training = type(training)(
            **{f: getattr(training, f) for f in training.__struct_fields__}
            | {"artifacts": {"model.json": digest_bytes(data)}}
        )
        return package(
            Blobs(data), loaded, training, report, version, bundles=tmp_path / "bundles",
            private_key=tmp_path / "signing.key", public_key=tmp_path / "signing.pub",
        )  # fmt: skip

    return run


def test_a_package_is_signed_listed_and_names_its_evidence(make, tmp_path):
    made = make()

    folder = bundle.path_of(tmp_path / "bundles", made.digest)
    manifest = bundle.verify(folder, public_key=tmp_path / "signing.pub", digest=made.digest)
    assert (manifest.name, manifest.version, manifest.tenant) == ("retail", 4, "default")
    assert manifest.training == VERSION.training
    assert made.files.keys() == {"model.json", "bom.cdx.json"}
    assert made.size == sum((folder / name).stat().st_size for name in made.files)
    assert made.signature_digest == digest_bytes(signature_path(folder).read_bytes())


def test_the_stock_command_verifies_it(make, tmp_path):
    folder = bundle.path_of(tmp_path / "bundles", make().digest)

    command = [sys.executable, "-m", "model_signing", "verify", "key", str(folder), "--signature"]
    done = subprocess.run(
        [*command, str(signature_path(folder)), "--public_key", str(tmp_path / "signing.pub")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr


def test_packaging_again_changes_nothing(make):
    assert make() == make()


def test_another_version_is_another_bundle(make):
    other = Version(**{f: getattr(VERSION, f) for f in VERSION.__struct_fields__} | {"version": 5})

    assert make().digest != make(version=other).digest


def test_the_bill_of_materials_is_valid_and_says_what_was_measured(make, tmp_path):
    made = make()

    text = (bundle.path_of(tmp_path / "bundles", made.digest) / "bom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    document = json.loads(text)
    model = document["metadata"]["component"]
    assert (model["type"], model["name"], model["version"]) == ("machine-learning-model", "retail", "4")
    metrics = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert {"lowerBound": "0.155", "upperBound": "0.165"} in [metric["confidenceInterval"] for metric in metrics]
    assert model["modelCard"]["considerations"]["fairnessAssessments"][0]["groupAtRisk"] == "recall@20 on age=65+"
    types = {component["type"] for component in document["components"]}
    assert types == {"data", "library"}
    assert "pkg:pypi/numpy" in text


def test_what_the_gates_refused_is_not_packaged(make, tmp_path):
    with pytest.raises(GateError, match="1 failed"):
        make(report=GateReport(results=(), passed=False, summary="refused: 1 failed"))

    assert not (tmp_path / "bundles").exists()


def test_a_pickle_is_not_packaged_whatever_it_is_called(make, tmp_path):
    with pytest.raises(InputError, match="a pickle, which runs code when loaded"):
        make(data=b"\x80\x04K\x01.")

    assert not (tmp_path / "bundles").exists()


def test_a_bundle_that_was_tampered_with_is_not_signed_again(make, tmp_path):
    folder = bundle.path_of(tmp_path / "bundles", make().digest)
    (folder / "model.json").write_bytes(b"{}")

    with pytest.raises(IntegrityError, match=r"changed model\.json"):
        make()


def test_inspect_tells_formats_and_refusals():
    facts = inspect({"a.json": b"{}", "b.json": b"\x80\x04K\x01."}, isolated=True, predictor="onnx")

    assert facts.formats == {"a.json": "json"}
    assert "pickle" in facts.refused["b.json"]
