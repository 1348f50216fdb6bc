"""The bill of materials of a model version: CycloneDX 1.6 with a model card, data sets and the environment.

The CycloneDX library writes components and their order; it has no model card, so that part is added here, in the words
of ``bom-1.6.schema.json``. Everything follows from what is given: the same model version has the same bill.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from bedplate import clock
from bedplate.bundle.manifest import File
from bedplate.ids import Digest, canonical, digest_of
from bedplate.records import Metric, ModelSignature, TableVersion, TensorSpec

NAME = "bom.cdx.json"
_APPROACH = {"recommender": "supervised", "tabular": "supervised"}
_CLASSES = {"recommender": "two-stage retrieval and ranking", "tabular": "gradient boosting"}


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """What a person must know about a model before using it; CycloneDX calls the parts ``considerations``."""

    statement: str
    owner: str
    purpose: str
    sensitive: tuple[str, ...] = ()
    limitations: tuple[str, ...] = ()
    risk: str = ""
    groups: tuple[tuple[str, str], ...] = ()
    """Name of a group that could be worse off, and what was found for it."""


def build(
    *,
    name: str,
    version: int,
    tenant: str,
    workload: str,
    created: str,
    signature: ModelSignature,
    files: Mapping[str, File],
    data: Sequence[TableVersion],
    metrics: Sequence[Metric],
    card: Card,
    environment: Mapping[str, str],
) -> bytes:
    """The bill of materials as canonical JSON."""
    # Needed for a release only.
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    def sha256(digest: Digest) -> HashType:
        return HashType(alg=HashAlgorithm.SHA_256, content=digest.removeprefix("sha256:"))

    model = Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        group=tenant,
        name=name,
        version=str(version),
        bom_ref=f"model:{name}@{version}",
        description=card.statement,
        components=[
            Component(
                type=ComponentType.FILE,
                name=file_name,
                bom_ref=f"file:{file_name}",
                hashes=[sha256(file.digest)],
                properties=[Property(name="bedplate:format", value=file.format)],
            )
            for file_name, file in files.items()
        ],
    )
    tables = [
        Component(
            type=ComponentType.DATA,
            name=table.name,
            version=str(table.version),
            bom_ref=f"data:{table.name}@{table.version}",
            hashes=[sha256(table.digest)],
        )
        for table in data
    ]
    libraries = [
        Component(
            type=ComponentType.LIBRARY,
            name=library,
            version=release,
            bom_ref=f"python:{library}@{release}",
            purl=PackageURL("pypi", None, library, release),
        )
        for library, release in environment.items()
    ]
    identity = digest_of([name, version, tenant, created, {n: f.digest for n, f in files.items()}])
    bom = Bom(
        components=[*tables, *libraries],
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, identity),
        metadata=BomMetaData(component=model, timestamp=clock.parse(created)),
    )
    bom.register_dependency(model, [*tables, *libraries])
    document = json.loads(JsonV1Dot6(bom).output_as_string())
    document["metadata"]["component"]["modelCard"] = _model_card(workload, signature, data, metrics, card)
    for component in document["components"]:
        if component["type"] == "data":
            component["data"] = [_data(component, card)]
    return canonical(document)


def _model_card(
    workload: str, signature: ModelSignature, data: Sequence[TableVersion], metrics: Sequence[Metric], card: Card
) -> dict[str, Any]:
    return {
        "modelParameters": {
            "approach": {"type": _APPROACH.get(workload, "supervised")},
            "task": workload,
            "architectureFamily": _CLASSES.get(workload, workload),
            "datasets": [{"ref": f"data:{table.name}@{table.version}"} for table in data],
            "inputs": [{"format": _tensor(tensor)} for tensor in signature.inputs],
            "outputs": [{"format": _tensor(tensor)} for tensor in signature.outputs],
        },
        "quantitativeAnalysis": {
            "performanceMetrics": [
                {
                    "type": f"{metric.metric} of {metric.model}",
                    "value": repr(metric.estimate.value),
                    "slice": metric.slice,
                    "confidenceInterval": {
                        "lowerBound": repr(metric.estimate.low),
                        "upperBound": repr(metric.estimate.high),
                    },
                }
                for metric in metrics
            ]
        },
        "considerations": {
            "users": [card.owner],
            "useCases": [card.statement, f"purpose: {card.purpose}"],
            "technicalLimitations": list(card.limitations),
            "ethicalConsiderations": [{"name": card.risk}] if card.risk else [],
            "fairnessAssessments": [{"groupAtRisk": group, "harms": finding} for group, finding in card.groups],
        },
    }


def _data(component: Mapping[str, Any], card: Card) -> dict[str, Any]:
    return {
        "type": "dataset",
        "name": component["name"],
        "classification": "personal" if card.sensitive else "internal",
        "sensitiveData": list(card.sensitive),
        "governance": {"owners": [{"contact": {"name": card.owner}}]},
    }


def _tensor(tensor: TensorSpec) -> str:
    return f"{tensor.name}: {tensor.datatype}[{', '.join('?' if size < 0 else str(size) for size in tensor.shape)}]"
