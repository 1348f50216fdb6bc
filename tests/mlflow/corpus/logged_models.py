"""Logged models: their life, params, tags, metrics, search."""

from typing import Any

from tests.mlflow.corpus.runs import NOBODY
from tests.mlflow.steps import Step, delete, differs, get, patch, post, strict

NO_MODEL = "m-" + NOBODY


def create(name: str, keep: str | None = None, **more: Any) -> Step:
    """A logged model in ``$e``."""
    kept = {keep: "model.info.model_id"} if keep else {}
    return post("logged-models", {"experiment_id": "$e", "name": name, **more}, keep=kept)


LIFE = (
    post("experiments/create", {"name": "logged models"}, keep={"e": "experiment_id"}),
    post("runs/create", {"experiment_id": "$e", "start_time": 1000, "run_name": "source"}, keep={"r": "run.info.run_id"}),
    create("plain", "plain"),
    create("whole", "whole", model_type="agent", source_run_id="$r", params=[{"key": "p", "value": "1"}, {"key": "q", "value": ""}], tags=[{"key": "t", "value": "x"}]),
    post("logged-models", {"experiment_id": "$e"}, keep={"unnamed": "model.info.model_id"}),
    create("plain", unknown_field=5),
    create("", "empty"),
    *(get(f"logged-models/${name}") for name in ("plain", "whole", "unnamed")),
    # refused
    post("logged-models", {"name": "x"}),
    post("logged-models", {"experiment_id": "424242", "name": "x"}),
    post("logged-models", {"experiment_id": "abc", "name": "x"}),
    *(create(name) for name in ("a/b", "a:b", "a.b", "a%b", "a\"b", "a'b", "x" * 256)),
    create("x", params=[{"key": "p" * 251, "value": "v"}]),
    create("x", params=[{"key": "p", "value": "v" * 6001}]),
    create("x", tags=[{"key": "t" * 251, "value": "v"}]),
    create("x", tags=[{"key": "t", "value": "v" * 8001}]),
    create("x", tags="t"),
    create("x", source_run_id=NOBODY),
    post("logged-models", {"experiment_id": "$e", "name": 5}),
    get(f"logged-models/{NO_MODEL}"),
    get("logged-models/nothing"),
    # finalize
    patch("logged-models/$plain", {"model_id": "$plain", "status": "LOGGED_MODEL_READY"}),
    patch("logged-models/$whole", {"model_id": "$whole", "status": "LOGGED_MODEL_UPLOAD_FAILED"}),
    patch("logged-models/$unnamed", {"model_id": "$unnamed", "status": 1}),
    strict(patch("logged-models/$plain", {"model_id": "$plain", "status": "DONE"})),
    patch("logged-models/$plain", {"model_id": "$plain", "status": "LOGGED_MODEL_READY"}),
    patch("logged-models/$plain", {"model_id": "$plain"}),
    patch("logged-models/$plain", {"status": "LOGGED_MODEL_READY"}),
    patch(f"logged-models/{NO_MODEL}", {"model_id": NO_MODEL, "status": "LOGGED_MODEL_READY"}),
    *(get(f"logged-models/${name}") for name in ("plain", "whole", "unnamed")),
    # params and tags
    post("logged-models/$plain/params", {"model_id": "$plain", "params": [{"key": "a", "value": "1"}, {"key": "b", "value": "2"}]}),
    post("logged-models/$plain/params", {"model_id": "$plain", "params": [{"key": "a", "value": "1"}]}),
    post("logged-models/$plain/params", {"model_id": "$plain", "params": []}),
    post("logged-models/$plain/params", {"params": [{"key": "c", "value": "1"}]}),
    post("logged-models/$plain/params", {"model_id": "$plain", "params": [{"key": "k" * 251, "value": "1"}]}),
    post("logged-models/$plain/params", {"model_id": "$plain", "params": "x"}),
    post(f"logged-models/{NO_MODEL}/params", {"model_id": NO_MODEL, "params": [{"key": "a", "value": "1"}]}),
    patch("logged-models/$plain/tags", {"tags": [{"key": "a", "value": "1"}, {"key": "b", "value": ""}]}),
    patch("logged-models/$plain/tags", {"tags": [{"key": "a", "value": "2"}]}),
    patch("logged-models/$plain/tags", {"tags": []}),
    patch("logged-models/$plain/tags", {"tags": [{"key": "k" * 251, "value": "1"}]}),
    patch("logged-models/$plain/tags", {"tags": [{"key": "k", "value": "v" * 8001}]}),
    patch("logged-models/$plain/tags", {"tags": "x"}),
    patch(f"logged-models/{NO_MODEL}/tags", {"tags": [{"key": "a", "value": "1"}]}),
    get("logged-models/$plain"),
    delete("logged-models/$plain/tags/a"),
    delete("logged-models/$plain/tags/a"),
    delete("logged-models/$plain/tags/never"),
    delete(f"logged-models/{NO_MODEL}/tags/a"),
    get("logged-models/$plain"),
    # metrics
    post("runs/log-metric", {"run_id": "$r", "key": "acc", "value": 0.5, "timestamp": 1000, "step": 1, "model_id": "$plain"}),
    post("runs/log-metric", {"run_id": "$r", "key": "acc", "value": 0.75, "timestamp": 2000, "step": 2, "model_id": "$plain", "dataset_name": "d", "dataset_digest": "1"}),
    post("runs/log-batch", {"run_id": "$r", "metrics": [{"key": "loss", "value": 2.5, "timestamp": 1, "step": 1, "model_id": "$plain"}, {"key": "loss", "value": 1.5, "timestamp": 2, "step": 2, "model_id": "$plain"}]}),
    post("runs/log-metric", {"run_id": "$r", "key": "acc", "value": 0.5, "timestamp": 1000, "model_id": NO_MODEL}),
    get("logged-models/$plain"),
    get("runs/get", {"run_id": "$r"}),
    get("metrics/get-history", {"run_id": "$r", "metric_key": "acc"}),
    # delete
    delete("logged-models/$whole"),
    get("logged-models/$whole"),
    get("logged-models/$whole", {"allow_deleted": "true"}),
    delete("logged-models/$whole"),
    patch("logged-models/$whole/tags", {"tags": [{"key": "a", "value": "1"}]}),
    patch("logged-models/$whole", {"model_id": "$whole", "status": "LOGGED_MODEL_READY"}),
    delete(f"logged-models/{NO_MODEL}"),
    post("logged-models/search", {"experiment_ids": ["$e"], "order_by": [{"field_name": "name"}]}, unordered=True),
    # what it answers with a statement that holds an id, the same moment again, and what is too long for an index
    create("x", params=[{"key": "p", "value": "1"}, {"key": "p", "value": "2"}]),
    differs(post("runs/log-metric", {"run_id": "$r", "key": "acc", "value": 0.25, "timestamp": 1000, "step": 1, "model_id": "$plain"}), "metrics-of-models", 200, None),
    differs(create("x" * 501), "long-names"),
    differs(create("x", params=[{"key": "p" * 256, "value": "v"}]), "long-names"),
    differs(patch("logged-models/$plain/tags", {"tags": [{"key": "k" * 256, "value": "1"}]}), "long-names"),
)

_FILTERS = (
    "name = 'm1'",
    "name != 'm1'",
    "name LIKE 'm%'",
    "name ILIKE 'M%'",
    "attributes.name = 'm2'",
    "attribute.name IN ('m1', 'm3')",
    "name NOT IN ('m1', 'm3')",
    "model_type = 'agent'",
    "status = '2'",
    "source_run_id = '$r'",
    "creation_timestamp > 1000",
    "creation_time > 1000",
    "last_updated_timestamp >= 5",
    "params.depth = '2'",
    "params.depth != '2'",
    "params.depth LIKE '%'",
    "tags.colour = 'red'",
    "tags.colour ILIKE 'RED'",
    "tags.`two words` = 'x'",
    "metrics.acc > 0.5",
    "metrics.acc >= 0.5 and metrics.loss < 3",
    "metrics.`acc` = 0.75",
    "name = 'm1' AND params.depth = '1'",
    "model_id = '$one'",
    "experiment_id = '$e'",
)
_BAD_FILTERS = (
    "name",
    "name > 'a'",
    "name = 'a' or name = 'b'",
    "name = 'a'; drop table x",
    "metrics.acc = 'x'",
    "metrics.acc LIKE 'x'",
    "params.depth > 5",
    "unknown = 'x'",
    "nothing.a = 'x'",
    "creation_timestamp = 'x'",
)
_ORDERS: tuple[Any, ...] = (
    [{"field_name": "name"}],
    [{"field_name": "name", "ascending": False}],
    [{"field_name": "name", "ascending": True}],
    [{"field_name": "attributes.name", "ascending": True}],
    [{"field_name": "metrics.acc", "ascending": True}, {"field_name": "name", "ascending": True}],
    [{"field_name": "metrics.acc", "ascending": False}, {"field_name": "name", "ascending": True}],
    [{"field_name": "metrics.acc", "ascending": False, "dataset_name": "d"}, {"field_name": "name", "ascending": True}],
    [{"field_name": "metrics.acc", "ascending": False, "dataset_name": "d", "dataset_digest": "1"}, {"field_name": "name", "ascending": True}],
    [{"field_name": "params.depth", "ascending": True}, {"field_name": "name", "ascending": True}],
    [{"field_name": "creation_timestamp", "ascending": True}],
    [{"field_name": "last_updated_timestamp", "ascending": False}, {"field_name": "name"}],
)
_BAD_ORDERS: tuple[Any, ...] = ([{"field_name": "nothing"}], [{"field_name": "tags.colour"}], [{}], "name", ["name"], [{"field_name": "metrics.acc", "dataset_digest": "1"}])
_BY_NAME = [{"field_name": "name", "ascending": True}]


def search(**more: Any) -> Step:
    """A search in ``$e``, by name unless it says otherwise."""
    return post("logged-models/search", {"experiment_ids": ["$e"], "order_by": _BY_NAME, **more})


SEARCH = (
    post("experiments/create", {"name": "logged model search"}, keep={"e": "experiment_id"}),
    post("experiments/create", {"name": "logged model search 2"}, keep={"f": "experiment_id"}),
    post("runs/create", {"experiment_id": "$e", "start_time": 1000, "run_name": "source"}, keep={"r": "run.info.run_id"}),
    create("m1", "one", model_type="agent", source_run_id="$r", params=[{"key": "depth", "value": "1"}], tags=[{"key": "colour", "value": "red"}]),
    create("m2", "two", model_type="tool", source_run_id="$r", params=[{"key": "depth", "value": "2"}], tags=[{"key": "colour", "value": "Red"}]),
    create("m3", "three", params=[{"key": "depth", "value": "3"}], tags=[{"key": "two words", "value": "x"}]),
    create("n4", "four"),
    post("logged-models", {"experiment_id": "$f", "name": "elsewhere"}),
    patch("logged-models/$one", {"model_id": "$one", "status": "LOGGED_MODEL_READY"}),
    post("runs/log-batch", {"run_id": "$r", "metrics": [
        {"key": "acc", "value": 0.5, "timestamp": 1, "step": 1, "model_id": "$one"},
        {"key": "acc", "value": 0.75, "timestamp": 1, "step": 1, "model_id": "$two"},
        {"key": "acc", "value": 0.9, "timestamp": 1, "step": 2, "model_id": "$one", "dataset_name": "d", "dataset_digest": "1"},
        {"key": "loss", "value": 2.0, "timestamp": 1, "step": 1, "model_id": "$one"},
        {"key": "loss", "value": 1.0, "timestamp": 2, "step": 2, "model_id": "$two"},
    ]}),
    search(),
    search(experiment_ids=["$e", "$f"]),
    search(experiment_ids=["424242"]),
    *(search(filter=text) for text in _FILTERS),
    *(search(filter=text) for text in _BAD_FILTERS),
    *(search(order_by=order) for order in _ORDERS),
    *(search(order_by=order) for order in _BAD_ORDERS),
    *(differs(search(filter=text), "status-words", 200, None) for text in ("status = 'READY'", "status = 'PENDING'", "status != 'READY'")),
    differs(search(filter="name = 5"), "strict-filters"),
    differs(search(datasets=[{"dataset_name": "d"}], filter="metrics.acc > 0.1"), "any-digest", 200, None),
    search(datasets=[{"dataset_name": "d", "dataset_digest": "1"}], filter="metrics.acc > 0.1"),
    search(datasets=[{"dataset_name": "d", "dataset_digest": "2"}], filter="metrics.acc > 0.1"),
    search(datasets=[{"dataset_name": "never"}], filter="metrics.acc > 0.1"),
    search(datasets=[{"dataset_digest": "1"}], filter="metrics.acc > 0.1"),
    post("logged-models/search", {"experiment_ids": ["$e"], "order_by": _BY_NAME, "max_results": 2}, keep={"page": "next_page_token"}),
    post("logged-models/search", {"experiment_ids": ["$e"], "order_by": _BY_NAME, "max_results": 2, "page_token": "$page"}),
    search(max_results=2, page_token="not a token"),
    search(max_results=50),
    search(max_results="x"),
    search(experiment_ids=[]),
    search(experiment_ids=None),
    search(experiment_ids="$e"),
    search(experiment_ids=[5]),
    post("logged-models/search", {}),
)

CONVERSATIONS = {"logged models": LIFE, "logged model search": SEARCH}
