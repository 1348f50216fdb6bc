"""Workspaces: create, read, change, delete. Played against a server that has them switched on, which ours always has."""

from tests.mlflow.steps import delete, differs, get, patch, post

ALL = "/api/3.0/mlflow/workspaces"
AJAX = "/ajax-api/3.0/mlflow/workspaces"

LIFE = (
    post(ALL, {"name": "growth", "description": "what grows"}),
    post(ALL, {"name": "plain-one"}),
    get(f"{ALL}/growth"),
    get(f"{AJAX}/growth"),
    get(f"{ALL}/plain-one"),
    get(f"{ALL}/absent"),
    patch(f"{ALL}/growth", {"description": "what grew"}),
    get(f"{ALL}/growth"),
    patch(f"{ALL}/plain-one", {"description": "not so plain", "unknown": 1}),
    # refused
    post(ALL, {"name": "growth"}),
    post(ALL, {"name": "default"}),
    post(ALL, {}),
    post(ALL, {"name": ""}),
    post(ALL, {"name": None}),
    post(ALL, {"name": "a"}),
    post(ALL, {"name": "a" * 64}),
    post(ALL, {"name": "Growth"}),
    post(ALL, {"name": "-growth"}),
    post(ALL, {"name": "growth-"}),
    post(ALL, {"name": "gr_owth"}),
    post(ALL, {"name": "api"}),
    post(ALL, {"name": "workspaces"}),
    post(ALL, {"name": "named", "description": 7}),
    patch(f"{ALL}/growth", {}),
    patch(f"{ALL}/absent", {"description": "x"}),
    patch(f"{ALL}/Growth", {"description": "x"}),
    get(f"{ALL}/Growth"),
    delete(f"{ALL}/default"),
    delete(f"{ALL}/absent"),
    delete(f"{ALL}/Growth"),
    delete(f"{ALL}/growth?mode=EVERYTHING"),
    # one that holds something
    post("experiments/create", {"name": "within"}, headers=(("X-MLFLOW-WORKSPACE", "growth"),), keep={"e": "experiment_id"}),
    get("experiments/get", {"experiment_id": "$e"}, headers=(("X-MLFLOW-WORKSPACE", "growth"),)),
    get("experiments/get", {"experiment_id": "$e"}),
    get("experiments/get-by-name", {"experiment_name": "within"}, headers=(("X-MLFLOW-WORKSPACE", "absent"),)),
    get("experiments/get-by-name", {"experiment_name": "within"}, headers=(("X-MLFLOW-WORKSPACE", "Growth"),)),
    differs(delete(f"{ALL}/growth"), "no-internal-errors", 400, "INVALID_STATE"),
    differs(delete(f"{ALL}/growth?mode=CASCADE"), "workspaces-emptied-first"),
    delete(f"{ALL}/plain-one"),
    get(f"{ALL}/plain-one"),
    # storage of their own
    differs(post(ALL, {"name": "stored", "default_artifact_root": "s3://bucket/there"}), "workspaces-share-storage"),
    post(ALL, {"name": "stored-two", "default_artifact_root": " "}),
    get(f"{ALL}/stored-two"),
)

CONVERSATIONS = {"workspaces": LIFE}
