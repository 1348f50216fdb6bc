"""What MLflow's API has beside what is here: asking for it is answered by ``NOT_IMPLEMENTED``, not by "unknown".

The families are those of MLflow 3.17. They are no routes: no handler stands behind them, and nothing is decided.
"""

import msgspec

from bedplate.api.mlflow import wire
from bedplate.http import Request, Response

_PASSWORDS = "users with passwords, who have keys instead (`bedplate user add`, `bedplate key create`)"
FAMILIES: dict[str, str] = {
    "/graphql": "GraphQL",
    "/mlflow/artifacts/presigned-download-url": "addresses of files in the storage itself",
    "/mlflow/artifacts/presigned-upload-url": "addresses of files in the storage itself",
    "/mlflow-artifacts/presigned": "addresses of files in the storage itself",
    "/mlflow/datasets": "evaluation data sets",
    "/mlflow/demo": "demonstration data",
    "/mlflow/gateway": "the AI gateway",
    "/mlflow/gateway-proxy": "the AI gateway",
    "/mlflow/genai": "evaluation of language models",
    "/mlflow/get-online-trace-details": "traces",
    "/mlflow/get-trace-artifact": "traces",
    "/mlflow/issues": "issues",
    "/mlflow/jobs": "jobs",
    "/mlflow/label-schemas": "label schemas",
    "/mlflow/permissions": "roles and permissions by MLflow's own API",
    "/mlflow/prompt-optimization": "prompt optimisation",
    "/mlflow/review-queues": "review queues",
    "/mlflow/roles": "roles and permissions by MLflow's own API",
    "/mlflow/runs/create-promptlab-run": "prompt engineering",
    "/mlflow/scorer": "scorers",
    "/mlflow/scorers": "scorers",
    "/mlflow/traces": "traces",
    "/mlflow/ui-telemetry": "telemetry of pages",
    "/mlflow/unified-traces": "traces",
    "/mlflow/users/create": _PASSWORDS,
    "/mlflow/users/update-password": _PASSWORDS,
    "/mlflow/webhooks": "webhooks",
    "/v1/metrics": "OpenTelemetry",
    "/v1/traces": "OpenTelemetry",
}
"""Where each begins, below the prefixes of the API, and what it is about."""


def present(request: Request, response: Response) -> Response:
    """An error about an address that no route has, in the form of MLflow's API if the address is one of its own."""
    if request.route is not None or response.status < 400:
        return response
    prefix = next((prefix for prefix in wire.PREFIXES if request.path.startswith(f"{prefix}/mlflow")), "")
    name = _family(request.path.removeprefix(prefix))
    if name is not None and response.status == 404:
        left_out = wire.NotImplementedHereError(
            f"{name}: not part of this server", fix="docs/reference/mlflow.md lists what is"
        )
        said = wire.error(left_out)
        response.status, response.body = said.status, said.body  # the headers stay: one may end the connection
    elif prefix:
        response.body = wire.unknown(response.status, msgspec.json.decode(response.body)["message"])
    return response


def _family(path: str) -> str | None:
    for parts in (3, 2, 1):  # the longest beginning first
        name = FAMILIES.get("/".join(path.split("/")[: parts + 1]))
        if name is not None:
            return name
    return None
