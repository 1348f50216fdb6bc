"""The port between the server and what answers: a predictor takes named arrays and gives named arrays.

A trusted process loads only formats that run no code; which loader reads a bundle stands in its signature.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np

from bedplate.errors import IntegrityError
from bedplate.records import ModelSignature


class FeatureReader(Protocol):
    """Where a predictor reads online features."""

    def get(self, namespace: str, key: bytes) -> bytes | None:
        """The value under ``key``, or None."""

    def get_many(self, namespace: str, keys: list[bytes]) -> list[bytes | None]:
        """The values under ``keys``, in their order."""


class Answer(msgspec.Struct):
    """What a predictor gives: the outputs, the feature values it used (logged), and whom it is about.

    ``outputs`` holds one array per output of the signature; string outputs are arrays of ``object`` or ``str``.
    ``features`` must be plain JSON values.
    """

    outputs: dict[str, np.ndarray]
    features: dict[str, Any] = {}
    entity: str = ""


class Predictor(Protocol):
    """Answers requests for one bundle. Called from one thread at a time."""

    signature: ModelSignature

    def predict(self, inputs: dict[str, np.ndarray], features: FeatureReader) -> Answer:
        """The answer to checked inputs: every input of the signature is there with its type and shape.

        Raises:
            InputError: the inputs make no sense to this model; the client sees the text.
        """


class Manifest(Protocol):
    """What a loader needs of a verified bundle."""

    @property
    def signature(self) -> ModelSignature: ...
    @property
    def files(self) -> Mapping[str, Any]: ...


Loader = Callable[[Path, Manifest, int], Predictor]


def load(folder: Path, manifest: Manifest, *, threads: int = 1) -> Predictor:
    """The predictor of a verified bundle.

    Raises:
        IntegrityError: the signature names no known loader, or a file has a format that is not on the list.
    """
    raise IntegrityError(f"no loader is called {manifest.signature.predictor!r}")
