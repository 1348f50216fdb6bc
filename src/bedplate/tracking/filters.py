"""What can be searched and ordered by in runs, in experiments and in logged models."""

from bedplate.store.filters import KINDS, LISTS, NUMBERS, PRESENCE, TEXTS, Grammar

RUNS = Grammar(
    kinds=KINDS,
    attributes={
        "run_id": "text",
        "run_name": "text",
        "user_id": "text",
        "status": "text",
        "artifact_uri": "text",
        "start_time": "number",
        "end_time": "number",
    },
    aliases={
        "created": "start_time",
        "Created": "start_time",
        "run name": "run_name",
        "Run name": "run_name",
        "Run Name": "run_name",
    },
    comparators={"metric": NUMBERS, "param": TEXTS | PRESENCE, "tag": TEXTS | PRESENCE, "dataset": TEXTS},
    listed=frozenset({"run_id", "name", "digest", "context"}),
    nullable=frozenset({"param", "tag"}),
    order_attributes=frozenset({"run_id", "run_name", "user_id", "status", "artifact_uri", "start_time", "end_time"}),
    order_kinds=frozenset({"attribute", "metric", "param", "tag"}),
    dataset_keys=frozenset({"name", "digest", "context"}),
)

EXPERIMENTS = Grammar(
    kinds={"attribute": "attribute", "tag": "tag", "tags": "tag"},
    attributes={
        "name": "text",
        "experiment_id": "identifier",
        "creation_time": "integer",
        "last_update_time": "integer",
    },
    comparators={"tag": TEXTS | PRESENCE},
    listed=frozenset({"experiment_id"}),
    nullable=frozenset({"tag"}),
    order_attributes=frozenset({"name", "experiment_id", "creation_time", "last_update_time"}),
)

LOGGED_MODELS = Grammar(
    kinds={"attributes": "attribute", "metrics": "metric", "params": "param", "tags": "tag"},
    attributes={
        "model_id": "text",
        "name": "text",
        "model_type": "text",
        "source_run_id": "text",
        "artifact_location": "text",
        "status_message": "text",
        "lifecycle_stage": "text",
        "status": "identifier",
        "experiment_id": "identifier",
        "creation_timestamp": "number",
        "last_updated_timestamp": "number",
    },
    aliases={
        "creation_time": "creation_timestamp",
        "creation_timestamp_ms": "creation_timestamp",
        "last_updated_timestamp_ms": "last_updated_timestamp",
    },
    comparators={"metric": NUMBERS, "param": TEXTS | LISTS, "tag": TEXTS | LISTS},
    listed=frozenset(
        {
            "model_id",
            "name",
            "model_type",
            "source_run_id",
            "artifact_location",
            "status_message",
            "lifecycle_stage",
            "status",
            "experiment_id",
        }
    ),
    order_kinds=frozenset({"attribute", "metric"}),
)
