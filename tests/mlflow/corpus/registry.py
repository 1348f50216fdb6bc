"""Registered models, their versions, stages, aliases and tags."""

from typing import Any

from tests.mlflow.corpus.runs import NOBODY
from tests.mlflow.steps import Step, delete, differs, get, patch, post

MODEL, VERSION = "registered-models/", "model-versions/"


def make(name: str, **more: Any) -> Step:
    """A registered model."""
    return post(MODEL + "create", {"name": name, **more})


def version(name: str, **more: Any) -> Step:
    """A version whose source is the model that ``$r`` logged."""
    return post(VERSION + "create", {"name": name, "source": "mlflow-artifacts:/$e/$r/artifacts/model", "run_id": "$r", **more})


_RUN = (
    post("runs/create", {"experiment_id": "$e", "start_time": 1000, "run_name": "source"}, keep={"r": "run.info.run_id"}),
)

MODELS = (
    make("reg one"),
    make("reg two", description="two", tags=[{"key": "a", "value": "1"}, {"key": "b", "value": ""}]),
    make("reg ünïcode ☃ %41 ' \""),
    make("reg unknown", nothing=5),
    make("n" * 256),
    get(MODEL + "get", {"name": "reg one"}),
    get(MODEL + "get", {"name": "reg two"}),
    get(MODEL + "get", {"name": "reg ünïcode ☃ %41 ' \""}),
    # refused
    make("reg one"),
    *(make(name) for name in ("", " ", "a/b", "a:b", "..", "../up", "/abs")),
    post(MODEL + "create", {}),
    post(MODEL + "create", {"name": 5}),
    post(MODEL + "create", {"name": None}),
    make("x1", tags="t"),
    make("x2", tags=[{"key": "k" * 251, "value": "v"}]),
    make("x3", tags=[{"key": "../up", "value": "v"}]),
    make("x4", description=5),
    get(MODEL + "get", {"name": "nobody"}),
    get(MODEL + "get"),
    get(MODEL + "get", {"name": ""}),
    get(MODEL + "get", {"name": "a/b"}),
    # describe and rename
    patch(MODEL + "update", {"name": "reg one", "description": "new"}),
    patch(MODEL + "update", {"name": "reg one", "description": ""}),
    patch(MODEL + "update", {"name": "reg one"}),
    patch(MODEL + "update", {"name": "nobody", "description": "x"}),
    patch(MODEL + "update", {"description": "x"}),
    get(MODEL + "get", {"name": "reg one"}),
    post(MODEL + "rename", {"name": "reg one", "new_name": "reg one renamed"}),
    get(MODEL + "get", {"name": "reg one"}),
    get(MODEL + "get", {"name": "reg one renamed"}),
    post(MODEL + "rename", {"name": "reg one renamed", "new_name": "reg two"}),
    post(MODEL + "rename", {"name": "reg one renamed", "new_name": "reg one renamed"}),
    post(MODEL + "rename", {"name": "reg one renamed", "new_name": "a/b"}),
    post(MODEL + "rename", {"name": "reg one renamed", "new_name": ""}),
    post(MODEL + "rename", {"name": "reg one renamed"}),
    post(MODEL + "rename", {"name": "nobody", "new_name": "x"}),
    # tags
    post(MODEL + "set-tag", {"name": "reg two", "key": "a", "value": "2"}),
    post(MODEL + "set-tag", {"name": "reg two", "key": "c", "value": "v" * 100000}),
    post(MODEL + "set-tag", {"name": "reg two", "key": "d", "value": "v" * 100001}),
    post(MODEL + "set-tag", {"name": "reg two", "key": "none"}),
    post(MODEL + "set-tag", {"name": "reg two", "key": "", "value": "x"}),
    post(MODEL + "set-tag", {"name": "reg two", "value": "x"}),
    post(MODEL + "set-tag", {"name": "reg two", "key": "k" * 251, "value": "x"}),
    post(MODEL + "set-tag", {"name": "reg two", "key": "a;b", "value": "x"}),
    post(MODEL + "set-tag", {"name": "nobody", "key": "a", "value": "x"}),
    delete(MODEL + "delete-tag", {"name": "reg two", "key": "a"}),
    delete(MODEL + "delete-tag", {"name": "reg two", "key": "a"}),
    delete(MODEL + "delete-tag", {"name": "reg two"}),
    delete(MODEL + "delete-tag", {"name": "nobody", "key": "a"}),
    get(MODEL + "get", {"name": "reg two"}),
    # delete
    delete(MODEL + "delete", {"name": "reg one renamed"}),
    get(MODEL + "get", {"name": "reg one renamed"}),
    delete(MODEL + "delete", {"name": "reg one renamed"}),
    delete(MODEL + "delete", {}),
    make("reg one renamed"),
)

VERSIONS = (
    post("experiments/create", {"name": "versions"}, keep={"e": "experiment_id"}),
    *_RUN,
    make("ver"),
    make("ver2"),
    version("ver"),
    version("ver", description="second", tags=[{"key": "a", "value": "1"}], run_link="http://example.com/run"),
    version("ver", unknown=5),
    post(VERSION + "create", {"name": "ver", "source": "mlflow-artifacts:/$e/$r/artifacts/other"}),
    post(VERSION + "create", {"name": "ver", "source": "s3://bucket/path", "run_id": "$r"}),
    post(VERSION + "create", {"name": "ver2", "source": "s3://bucket/path"}),
    get(VERSION + "get", {"name": "ver2", "version": "1"}),
    post("logged-models", {"experiment_id": "$e", "name": "logged", "source_run_id": "$r"}, keep={"m": "model.info.model_id", "at": "model.info.artifact_uri"}),
    post(VERSION + "create", {"name": "ver", "source": "models:/$m", "run_id": "$r", "model_id": "$m"}),
    post(VERSION + "create", {"name": "ver", "source": "$at", "model_id": "$m"}),
    get("logged-models/$m"),
    *(get(VERSION + "get", {"name": "ver", "version": number}) for number in ("1", "2", "3", "4", "5", "6", "7")),
    get(MODEL + "get", {"name": "ver"}),
    *(get(VERSION + "get-download-uri", {"name": "ver", "version": number}) for number in ("1", "5", "6")),
    # refused
    version("nobody"),
    version(""),
    post(VERSION + "create", {"name": "ver"}),
    post(VERSION + "create", {"name": "ver", "source": ""}),
    post(VERSION + "create", {"name": "ver", "source": 5}),
    post(VERSION + "create", {"source": "s3://bucket/path"}),
    post(VERSION + "create", {"name": "ver", "source": "/etc/passwd"}),
    post(VERSION + "create", {"name": "ver", "source": "file:///etc/passwd"}),
    post(VERSION + "create", {"name": "ver", "source": "mlflow-artifacts:/../../etc"}),
    post(VERSION + "create", {"name": "ver", "source": "http://host/api/2.0/mlflow-artifacts/artifacts/../x"}),
    post(VERSION + "create", {"name": "ver", "source": "models:/ver/99"}),
    post(VERSION + "create", {"name": "ver", "source": "s3://bucket/path", "run_id": NOBODY}),
    version("ver", tags="t"),
    version("ver", tags=[{"key": "k" * 251, "value": "v"}]),
    get(VERSION + "get", {"name": "ver", "version": "99"}),
    get(VERSION + "get", {"name": "ver", "version": "x"}),
    get(VERSION + "get", {"name": "ver", "version": "-1"}),
    get(VERSION + "get", {"name": "ver"}),
    get(VERSION + "get", {"version": "1"}),
    get(VERSION + "get", {"name": "nobody", "version": "1"}),
    get(VERSION + "get-download-uri", {"name": "ver", "version": "99"}),
    get(VERSION + "get-download-uri", {"name": "ver"}),
    # describe, tags
    patch(VERSION + "update", {"name": "ver", "version": "1", "description": "new"}),
    patch(VERSION + "update", {"name": "ver", "version": "1", "description": ""}),
    patch(VERSION + "update", {"name": "ver", "version": "1"}),
    patch(VERSION + "update", {"name": "ver", "version": "99", "description": "x"}),
    patch(VERSION + "update", {"name": "ver", "version": "x", "description": "x"}),
    patch(VERSION + "update", {"name": "ver"}),
    post(VERSION + "set-tag", {"name": "ver", "version": "1", "key": "a", "value": "1"}),
    post(VERSION + "set-tag", {"name": "ver", "version": "1", "key": "a", "value": "2"}),
    post(VERSION + "set-tag", {"name": "ver", "version": "1", "key": "none"}),
    post(VERSION + "set-tag", {"name": "ver", "version": "1", "key": "", "value": "x"}),
    post(VERSION + "set-tag", {"name": "ver", "version": "1", "key": "k" * 251, "value": "x"}),
    post(VERSION + "set-tag", {"name": "ver", "version": "1", "key": "long", "value": "v" * 100001}),
    post(VERSION + "set-tag", {"name": "ver", "version": "99", "key": "a", "value": "1"}),
    post(VERSION + "set-tag", {"name": "ver", "key": "a", "value": "1"}),
    get(VERSION + "get", {"name": "ver", "version": "1"}),
    delete(VERSION + "delete-tag", {"name": "ver", "version": "1", "key": "a"}),
    delete(VERSION + "delete-tag", {"name": "ver", "version": "1", "key": "a"}),
    delete(VERSION + "delete-tag", {"name": "ver", "version": "99", "key": "a"}),
    delete(VERSION + "delete-tag", {"name": "ver", "version": "1"}),
    get(VERSION + "get", {"name": "ver", "version": "1"}),
    # delete: the number is not given again
    delete(VERSION + "delete", {"name": "ver", "version": "3"}),
    delete(VERSION + "delete", {"name": "ver", "version": "3"}),
    get(VERSION + "get", {"name": "ver", "version": "3"}),
    delete(VERSION + "delete", {"name": "ver", "version": "7"}),
    version("ver"),
    delete(VERSION + "delete", {"name": "ver", "version": "x"}),
    delete(VERSION + "delete", {"name": "ver"}),
    # a rename takes versions along, a delete too
    post(MODEL + "rename", {"name": "ver", "new_name": "ver renamed"}),
    get(VERSION + "get", {"name": "ver renamed", "version": "1"}),
    get(VERSION + "get", {"name": "ver", "version": "1"}),
    delete(MODEL + "delete", {"name": "ver renamed"}),
    get(VERSION + "get", {"name": "ver renamed", "version": "1"}),
    # made again under the same name; it goes again, so that searches do not find it
    make("again"),
    version("again"),
    delete(MODEL + "delete", {"name": "again"}),
    make("again"),
    version("again"),
    delete(MODEL + "delete", {"name": "again"}),
)


def stage(number: str, to: Any, **more: Any) -> Step:
    """A transition of a version of ``stages``."""
    return post(VERSION + "transition-stage", {"name": "stages", "version": number, "stage": to, **more})


def latest(**more: Any) -> tuple[Step, Step]:
    """The latest versions, asked both ways."""
    return post(MODEL + "get-latest-versions", {"name": "stages", **more}), get(MODEL + "get-latest-versions", {"name": "stages", **more})


STAGES = (
    post("experiments/create", {"name": "stages"}, keep={"e": "experiment_id"}),
    *_RUN,
    make("stages"),
    *latest(),
    *(version("stages") for _ in range(4)),
    *latest(),
    stage("1", "Staging"),
    stage("2", "staging"),
    *latest(),
    stage("3", "Staging", archive_existing_versions=True),
    *latest(),
    *(get(VERSION + "get", {"name": "stages", "version": number}) for number in ("1", "2", "3", "4")),
    stage("1", "Archived"),
    stage("1", "None"),
    stage("4", "Archived", archive_existing_versions=False),
    *latest(stages=["None"]),
    *latest(stages=["Staging", "None"]),
    *latest(stages=["staging"]),
    *latest(stages=["Somewhere"]),
    stage("1", "Somewhere"),
    stage("1", ""),
    stage("1", 5),
    stage("1", "None", archive_existing_versions=True),
    stage("1", "Archived", archive_existing_versions=True),
    stage("1", "Staging", archive_existing_versions="yes"),
    stage("99", "Staging"),
    stage("x", "Staging"),
    post(VERSION + "transition-stage", {"name": "nobody", "version": "1", "stage": "Staging"}),
    post(VERSION + "transition-stage", {"name": "stages", "version": "1"}),
    post(VERSION + "transition-stage", {"name": "stages", "stage": "Staging"}),
    post(MODEL + "get-latest-versions", {"name": "nobody"}),
    post(MODEL + "get-latest-versions", {}),
    post(MODEL + "get-latest-versions", {"name": "stages", "stages": "Staging"}),
    get(MODEL + "get", {"name": "stages"}),
    differs(stage("4", "Production"), "release-requests", 403, "PERMISSION_DENIED"),
    stage("4", "Archived"),
)


def alias(name: Any, number: Any = "1", model: str = "aliases") -> Step:
    """Set an alias."""
    return post(MODEL + "alias", {"name": model, "alias": name, "version": number})


ALIASES = (
    post("experiments/create", {"name": "aliases"}, keep={"e": "experiment_id"}),
    *_RUN,
    make("aliases"),
    version("aliases"),
    version("aliases"),
    alias("first"),
    alias("second"),
    alias("First-1_x"),
    alias("moves"),
    alias("moves", "2"),
    get(MODEL + "alias", {"name": "aliases", "alias": "first"}),
    get(MODEL + "alias", {"name": "aliases", "alias": "moves"}),
    get(MODEL + "get", {"name": "aliases"}),
    get(VERSION + "get", {"name": "aliases", "version": "1"}),
    get(VERSION + "get", {"name": "aliases", "version": "2"}),
    *(alias(name) for name in ("", "a b", "a/b", "latest", "LATEST", "v1", "V22", "a" * 255, "a" * 256, 5, None)),
    alias("x", "99"),
    alias("x", "y"),
    alias("x", model="nobody"),
    post(MODEL + "alias", {"name": "aliases", "alias": "x"}),
    post(MODEL + "alias", {"alias": "x", "version": "1"}),
    get(MODEL + "alias", {"name": "aliases", "alias": "never"}),
    get(MODEL + "alias", {"name": "nobody", "alias": "first"}),
    get(MODEL + "alias", {"name": "aliases"}),
    get(MODEL + "alias", {"name": "aliases", "alias": "latest"}),
    get(MODEL + "alias", {"name": "aliases", "alias": "v1"}),
    delete(MODEL + "alias", {"name": "aliases", "alias": "first"}),
    delete(MODEL + "alias", {"name": "aliases", "alias": "first"}),
    delete(MODEL + "alias", {"name": "aliases", "alias": "never"}),
    delete(MODEL + "alias", {"name": "nobody", "alias": "first"}),
    delete(MODEL + "alias", {"name": "aliases"}),
    get(MODEL + "alias", {"name": "aliases", "alias": "first"}),
    delete(VERSION + "delete", {"name": "aliases", "version": "2"}),
    get(MODEL + "alias", {"name": "aliases", "alias": "moves"}),
    get(MODEL + "get", {"name": "aliases"}),
    *(differs(alias(name), "release-requests", 403, "PERMISSION_DENIED") for name in ("champion", "Production")),
)

CONVERSATIONS = {"registered models": MODELS, "model versions": VERSIONS, "stages": STAGES, "aliases": ALIASES}
