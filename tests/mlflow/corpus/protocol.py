"""What holds for every route: prefixes, methods, bodies that are not what they should be, probes, what is left out."""

from tests.mlflow.corpus.runs import NOBODY
from tests.mlflow.steps import Step, delete, differs, get, patch, post, put

JSON = (("content-type", "application/json"),)
API = ("/api/2.0/mlflow/", "/ajax-api/2.0/mlflow/")
BOTH = ("/api/3.0/mlflow/", "/ajax-api/3.0/mlflow/")



def _calls(prefix: str) -> tuple[Step, ...]:
    return (
        get(prefix + "experiments/get", {"experiment_id": "$e"}),
        get(prefix + "runs/get", {"run_id": "$r"}),
        post(prefix + "runs/log-metric", {"run_id": "$r", "key": "m", "value": 1.0, "timestamp": 5}),
        post(prefix + "runs/search", {"experiment_ids": ["$e"]}),
        get(prefix + "registered-models/search", {"filter": "name = 'nobody'"}),
        get(prefix + "artifacts/list", {"run_id": "$r"}),
    )


PREFIXES = (
    post("experiments/create", {"name": "prefixes"}, keep={"e": "experiment_id"}),
    post("runs/create", {"experiment_id": "$e", "start_time": 1000, "run_name": "prefixes"}, keep={"r": "run.info.run_id"}),
    *(step for prefix in API for step in (*_calls(prefix), get(prefix + "runs/get", {"run_id": NOBODY}))),
    *(differs(step, "both-versions", 200, None) for prefix in BOTH for step in _calls(prefix)),
    *(get(path) for path in ("/api/1.0/mlflow/runs/get", "/api/2.0/preview/mlflow/runs/get", "/api/4.0/mlflow/runs/get", "/api/2.0/mlflow/nothing", "/api/2.0/mlflow", "/api/2.0/mlflow/", "/api/2.0/mlflow/runs/get/")),
    differs(get("/api/2.0//mlflow/runs/get"), "no-redirects", 404, None),
)

BODIES = (
    *(
        post("experiments/create", raw=raw, headers=JSON)
        for raw in (b"", b"{", b"[]", b"5", b"null", b'"text"', b"\xff\xfe", b'{"name": "\\ud800"}', b"{}" * 2, b'{"name": NaN}')
    ),
    post("experiments/create", raw=b'{"name": "no type"}'),
    post("experiments/create", raw=b'{"name": "form"}', headers=(("content-type", "application/x-www-form-urlencoded"),)),
    post("experiments/create", raw=b'{"name": "plain"}', headers=(("content-type", "text/plain"),)),
    post("experiments/create", raw=b'{"name": "charset"}', headers=(("content-type", "application/json; charset=utf-8"),)),
    differs(post("experiments/create", raw=b'{"name": "upper"}', headers=(("content-type", "Application/JSON"),)), "content-types", 200, None),
    differs(post("experiments/create", raw=b'"{\\"name\\": \\"encoded twice\\"}"', headers=JSON), "old-clients"),
    post("experiments/create", raw=b'{"name": "first", "name": "the last one counts"}', headers=JSON),
    differs(post("experiments/create", {"name": "both", "artifactLocation": "mlflow-artifacts:/a", "artifact_location": "mlflow-artifacts:/b"}), "one-spelling", 200, None),
    get("experiments/get", {"experimentId": "0"}),
    get("experiments/get", {"experiment_id": ["0", "1"]}),
    post("experiments/create?name=in+the+query", {}),
)

_ROUTES: tuple[tuple[str, str], ...] = (
    ("GET", "experiments/create"), ("PUT", "experiments/create"), ("DELETE", "experiments/create"), ("PATCH", "experiments/create"),
    ("POST", "experiments/get"), ("POST", "experiments/get-by-name"), ("PUT", "experiments/search"), ("GET", "experiments/update"), ("GET", "experiments/delete"),
    ("GET", "runs/create"), ("POST", "runs/get"), ("GET", "runs/log-metric"), ("GET", "runs/log-batch"), ("PUT", "runs/log-parameter"), ("GET", "runs/set-tag"), ("DELETE", "runs/delete-tag"),
    ("POST", "metrics/get-history"), ("POST", "artifacts/list"), ("GET", "logged-models"),
    ("POST", "registered-models/get"), ("GET", "registered-models/create"), ("POST", "registered-models/update"), ("GET", "registered-models/delete"), ("POST", "registered-models/delete"),
    ("POST", "model-versions/get"), ("GET", "model-versions/create"), ("POST", "model-versions/delete"), ("PUT", "registered-models/alias"),
)


def _wrong(method: str, path: str) -> Step:
    match method:
        case "GET":
            return get(path)
        case "PUT":
            return put(path if path.startswith("/") else f"/api/2.0/mlflow/{path}", b"{}", headers=JSON)
        case "PATCH":
            return patch(path, {})
        case "DELETE":
            return delete(path, {})
    return post(path, {})


METHODS = (
    *(_wrong(method, path) for method, path in _ROUTES),
    differs(get("runs/search", {"experiment_ids": ["0"], "max_results": 1}), "search-by-get", 200, None),
)

# One operation of each family, and those outside of families.
_LEFT_OUT: tuple[tuple[str, str], ...] = (
    ("GET", "/api/2.0/mlflow/traces"), ("POST", "/api/3.0/mlflow/traces/search"), ("GET", "/api/3.0/mlflow/traces/get"), ("PATCH", "/api/3.0/mlflow/traces/tr-1/tags"),
    ("GET", "/api/2.0/mlflow/webhooks"), ("POST", "/api/3.0/mlflow/datasets/create"), ("GET", "/api/3.0/mlflow/datasets/d-1"), ("GET", "/api/3.0/mlflow/gateway/endpoints/list"),
    ("POST", "/api/3.0/mlflow/issues/search"), ("GET", "/api/3.0/mlflow/label-schemas/list"), ("GET", "/api/3.0/mlflow/prompt-optimization/jobs/search"),
    ("GET", "/api/3.0/mlflow/review-queues/list"), ("GET", "/api/3.0/mlflow/scorers/list"), ("POST", "/ajax-api/3.0/mlflow/scorer/invoke"), ("GET", "/ajax-api/3.0/mlflow/jobs/1"),
    ("GET", "/ajax-api/2.0/mlflow/gateway-proxy"), ("GET", "/ajax-api/2.0/mlflow/get-trace-artifact"), ("POST", "/ajax-api/2.0/mlflow/runs/create-promptlab-run"),
    ("POST", "/ajax-api/3.0/mlflow/genai/evaluate/invoke"), ("GET", "/ajax-api/3.0/mlflow/ui-telemetry"), ("POST", "/graphql"),
    ("POST", "/api/2.0/mlflow/artifacts/presigned-upload-url"), ("POST", "/api/2.0/mlflow/artifacts/presigned-download-url"),
    ("POST", "/api/2.0/mlflow/webhooks"), ("DELETE", "/api/2.0/mlflow/webhooks/1"), ("GET", "/api/2.0/mlflow/unified-traces"),
)
LEFT_OUT = tuple(differs(_wrong(method, path), "left-out", 501, "NOT_IMPLEMENTED") for method, path in _LEFT_OUT)

PROBES = (
    get("/health"),
    get("/version"),
    get("/api/3.0/mlflow/server-info"),
    get("/ajax-api/3.0/mlflow/server-info"),
    post("/health", {}),
    post("/version", {}),
)

CONVERSATIONS = {"prefixes": PREFIXES, "bodies": BODIES, "methods": METHODS, "left out": LEFT_OUT, "probes": PROBES}
