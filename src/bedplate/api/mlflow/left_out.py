"""What MLflow's API has beside what is here: asking for it is answered by ``NOT_IMPLEMENTED``, not by "unknown".

The families are those of MLflow 3.17. They are no routes: no handler stands behind them, and nothing is decided.
"""

import msgspec

from bedplate.api.mlflow import wire
from bedplate.http import Request, Response

FAMILIES: dict[str, str] = {
    "datasets": "evaluation data sets",
    "demo": "demonstration data",
    "gateway": "the AI gateway",
    "gateway-proxy": "the AI gateway",
    "genai": "evaluation of language models",
    "get-online-trace-details": "traces",
    "get-trace-artifact": "traces",
    "issues": "issues",
    "jobs": "jobs",
    "label-schemas": "label schemas",
    "permissions": "permissions by MLflow's own API",
    "prompt-optimization": "prompt optimisation",
    "review-queues": "review queues",
    "roles": "roles by MLflow's own API",
    "scorer": "scorers",
    "scorers": "scorers",
    "traces": "traces",
    "ui-telemetry": "telemetry of pages",
    "unified-traces": "traces",
    "users": "users by MLflow's own API",
    "webhooks": "webhooks",
}
"""The first word of a path, and what it is about."""
OPERATIONS: dict[str, str] = {
    "artifacts/presigned-download-url": "addresses to download from directly",
    "artifacts/presigned-upload-url": "addresses to upload to directly",
    "runs/create-promptlab-run": "prompt engineering",
}
ELSEWHERE: dict[str, str] = {"/graphql": "GraphQL", "/v1/traces": "traces", "/v1/metrics": "metrics over OpenTelemetry"}
"""Paths outside the prefixes."""


def present(request: Request, response: Response) -> Response:
    """An error about an address that no route has, in the form of MLflow's API if the address is one of its own."""
    path = request.path
    if request.route is not None or response.status < 400:
        return response
    if path in ELSEWHERE:
        return wire.error(wire.left_out(ELSEWHERE[path]))
    prefix = next((prefix for prefix in wire.PREFIXES if path.startswith(f"{prefix}/mlflow")), None)
    if prefix is None:
        return response
    rest = path.removeprefix(f"{prefix}/mlflow/")
    name = OPERATIONS.get(rest) or FAMILIES.get(rest.partition("/")[0])
    if name is not None and response.status == 404:
        return wire.error(wire.left_out(name))
    response.body = wire.unknown(response.status, msgspec.json.decode(response.body)["message"])
    return response
