"""The artifact proxy and the pages' own ways to artifacts."""

from typing import Any

from tests.mlflow.corpus.runs import NOBODY
from tests.mlflow.steps import Step, delete, differs, get, post, put

PROXY = "/api/2.0/mlflow-artifacts/artifacts"
AJAX = "/ajax-api/2.0/mlflow-artifacts/artifacts"
MULTIPART = "/api/2.0/mlflow-artifacts/mpu"
UPLOAD = "/ajax-api/2.0/mlflow/upload-artifact"
OCTETS = (("content-type", "application/octet-stream"),)
_OUTSIDE = ("../x", "a/../../x", "a/../x", "..", "%2e%2e/x", "%252e%252e/x", "a/%2e%2e/%2e%2e/x")
_ELSEWHERE = ("/etc/passwd", "file:///etc/passwd", "a?b", "a#b")
_UNUSUAL = ("a\\b", "a//b", "./a", "c:/x")


def listing(**query: Any) -> Step:
    """artifacts/list of ``$r``."""
    return get("artifacts/list", {"run_id": "$r", **query})


FILES = (
    post("experiments/create", {"name": "artifacts"}, keep={"e": "experiment_id"}),
    post("runs/create", {"experiment_id": "$e", "start_time": 1000, "run_name": "artifacts"}, keep={"r": "run.info.run_id"}),
    listing(),
    put(PROXY + "/$e/$r/artifacts/a.txt", b"first", headers=OCTETS),
    put(PROXY + "/$e/$r/artifacts/a.txt", b"second", headers=OCTETS),
    put(PROXY + "/$e/$r/artifacts/folder/b.json", b'{"a": 1}', headers=OCTETS),
    put(PROXY + "/$e/$r/artifacts/folder/deep/c.bin", bytes(range(256)), headers=OCTETS),
    put(PROXY + "/$e/$r/artifacts/empty", b"", headers=OCTETS),
    put(PROXY + "/$e/$r/artifacts/no%20type%20%E2%98%83.txt", b"x"),
    put(AJAX + "/$e/$r/artifacts/ajax.txt", b"ajax", headers=OCTETS),
    put(PROXY + "/$e/$r/artifacts/large", b"0123456789" * 200_000, headers=OCTETS),
    listing(),
    listing(path="folder"),
    listing(path="folder/deep"),
    listing(path="folder/"),
    listing(path="folder/b.json"),
    listing(path="never"),
    listing(path=""),
    get("artifacts/list", {"run_uuid": "$r", "path": "folder"}),
    *(get(f"{PROXY}/$e/$r/artifacts/{name}") for name in ("folder/b.json", "folder/deep/c.bin", "empty", "ajax.txt", "large")),
    get(PROXY + "/$e/$r/artifacts/a.txt"),
    get(AJAX + "/$e/$r/artifacts/a.txt"),
    get(PROXY + "/$e/$r/artifacts/never"),
    get(PROXY + "/$e/$r/artifacts/folder"),
    get(PROXY, {"path": "$e/$r/artifacts"}),
    get(PROXY, {"path": "$e/$r/artifacts/folder"}),
    get(PROXY, {"path": "$e/$r/artifacts/never"}),
    get(AJAX, {"path": "$e/$r/artifacts/folder"}),
    # for the pages
    get("/get-artifact", {"run_id": "$r", "path": "folder/b.json"}),
    get("/get-artifact", {"run_uuid": "$r", "path": "a.txt"}),
    get("/get-artifact", {"run_id": "$r", "path": "never"}),
    get("/get-artifact", {"run_id": NOBODY, "path": "a.txt"}),
    get("/get-artifact", {"run_id": "$r", "path": "../../../etc/passwd"}),
    get("/get-artifact", {"run_id": "$r"}),
    post(UPLOAD + "?run_uuid=$r&path=from/page.txt", raw=b"page", headers=OCTETS),
    listing(path="from"),
    post(UPLOAD + "?run_uuid=$r", raw=b"page", headers=OCTETS),
    post(UPLOAD + "?path=x", raw=b"page", headers=OCTETS),
    post(UPLOAD + "?run_uuid=$r&path=x", raw=b"", headers=OCTETS),
    post(UPLOAD + "?run_uuid=$r&path=../x", raw=b"page", headers=OCTETS),
    post(UPLOAD + f"?run_uuid={NOBODY}&path=x", raw=b"page", headers=OCTETS),
    # paths that lead elsewhere
    *(listing(path=path) for path in (*_OUTSIDE, *_ELSEWHERE, "c:/x")),
    *(differs(listing(path=path), "strict-paths") for path in (*_UNUSUAL[:3], "100%")),
    *(get(PROXY, {"path": f"$e/$r/artifacts/{path}"}) for path in _OUTSIDE),
    *(differs(get(PROXY, {"path": f"$e/$r/artifacts/{path}"}), "strict-paths") for path in (*_UNUSUAL, "/etc/passwd")),
    *(get(f"{PROXY}/$e/$r/artifacts/{path}") for path in _OUTSIDE),
    *(differs(get(f"{PROXY}/$e/$r/artifacts/{path}"), "strict-paths") for path in (*_UNUSUAL, "/etc/passwd")),
    *(put(f"{PROXY}/$e/$r/artifacts/{path}", b"x", headers=OCTETS) for path in (*_OUTSIDE, "./a", "/etc/passwd")),
    *(differs(put(f"{PROXY}/$e/$r/artifacts/{path}", b"x", headers=OCTETS), "strict-paths") for path in _UNUSUAL[:2]),
    *(delete(f"{PROXY}/$e/$r/artifacts/{path}") for path in _OUTSIDE),
    *(differs(delete(f"{PROXY}/$e/$r/artifacts/{path}"), "strict-paths") for path in (*_UNUSUAL, "/etc/passwd")),
    listing(),
    # delete
    delete(PROXY + "/$e/$r/artifacts/a.txt"),
    get(PROXY + "/$e/$r/artifacts/a.txt"),
    delete(PROXY + "/$e/$r/artifacts/a.txt"),
    delete(PROXY + "/$e/$r/artifacts/folder"),
    listing(),
    get("artifacts/list", {"run_id": NOBODY}),
    get("artifacts/list"),
    get("artifacts/list", {"run_id": ""}),
)

MODELS = (
    post("experiments/create", {"name": "model artifacts"}, keep={"e": "experiment_id"}),
    post("logged-models", {"experiment_id": "$e", "name": "m"}, keep={"m": "model.info.model_id"}),
    put(PROXY + "/$e/models/$m/artifacts/MLmodel", b"flavors: {}\n", headers=OCTETS),
    put(PROXY + "/$e/models/$m/artifacts/code/x.py", b"x = 1\n", headers=OCTETS),
    get("logged-models/$m/artifacts/directories"),
    get("logged-models/$m/artifacts/directories", {"artifact_directory_path": "code"}),
    get("logged-models/$m/artifacts/directories", {"artifact_directory_path": "../up"}),
    get(f"logged-models/m-{NOBODY}/artifacts/directories"),
    get("/ajax-api/2.0/mlflow/logged-models/$m/artifacts/files", {"artifact_file_path": "MLmodel"}),
    get("/ajax-api/2.0/mlflow/logged-models/$m/artifacts/files", {"artifact_file_path": "never"}),
    get("/ajax-api/2.0/mlflow/logged-models/$m/artifacts/files", {"artifact_file_path": "../../x"}),
    get("/ajax-api/2.0/mlflow/logged-models/$m/artifacts/files"),
    post("registered-models/create", {"name": "with files"}),
    post("model-versions/create", {"name": "with files", "source": "mlflow-artifacts:/$e/models/$m/artifacts", "model_id": "$m"}),
    get("/model-versions/get-artifact", {"name": "with files", "version": "1", "path": "MLmodel"}),
    get("/model-versions/get-artifact", {"name": "with files", "version": "1", "path": "code/x.py"}),
    get("/model-versions/get-artifact", {"name": "with files", "version": "1", "path": "never"}),
    get("/model-versions/get-artifact", {"name": "with files", "version": "1", "path": "../../x"}),
    get("/model-versions/get-artifact", {"name": "with files", "version": "9", "path": "MLmodel"}),
    get("/model-versions/get-artifact", {"name": "nobody", "version": "1", "path": "MLmodel"}),
)

CONVERSATIONS = {"artifacts": FILES, "model artifacts": MODELS}
