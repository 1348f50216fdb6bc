"""Model folders as MLflow writes them, in memory: what its files hold, and the file that describes them."""

import json
from collections.abc import Iterable
from typing import Any

import yaml

from bedplate.ids import Digest, digest_bytes


class Stored:
    """One file."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)
        self.digest: Digest = digest_bytes(data)

    def pieces(self) -> Iterable[bytes]:
        """The bytes, in two pieces."""
        half = len(self.data) // 2
        return iter([self.data[:half], self.data[half:]])


def folder(files: dict[str, bytes], **described: Any) -> dict[str, Stored]:
    """A model with these files; ``described`` is what ``MLmodel`` says."""
    text = yaml.safe_dump({"run_id": "r", **described})
    return {name: Stored(data) for name, data in {"MLmodel": text.encode(), **files}.items()}


def flavors(name: str, loader: str | None = None, **flavor: Any) -> dict[str, Any]:
    """A flavour beside the one that every model has."""
    own = {"python_function": {"loader_module": loader or f"mlflow.{name}", "env": {"conda": "conda.yaml"}}}
    return {"flavors": {**own, name: {"code": None, **flavor}}}


def signature(*columns: tuple[str, str]) -> dict[str, Any]:
    """A signature of named columns."""
    return {"signature": {"inputs": json.dumps([{"type": kind, "name": name} for name, kind in columns])}}
