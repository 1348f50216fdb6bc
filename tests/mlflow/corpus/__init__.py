"""The corpus: for each noun one conversation, in which later calls see what earlier ones did."""

from tests.mlflow.corpus import (
    artifacts,
    batches,
    experiments,
    inputs,
    logged_models,
    metrics,
    protocol,
    registry,
    registry_search,
    runs,
    search,
    uploads,
    workspaces,
)
from tests.mlflow.steps import Step

CONVERSATIONS: dict[str, tuple[Step, ...]] = {
    name: conversation
    for module in (
        artifacts,
        batches,
        experiments,
        inputs,
        logged_models,
        metrics,
        protocol,
        registry,
        registry_search,
        runs,
        search,
    )
    for name, conversation in module.CONVERSATIONS.items()
}
IN_WORKSPACES = workspaces.CONVERSATIONS
"""Played against a server that was started with workspaces."""
IN_PARTS = uploads.CONVERSATIONS
"""Played against a server that keeps artifacts in S3."""
