"""The file that a use case is written down in: types, loading, checking, JSON Schema, a starter."""

from bedplate.usecase.load import FILE_NAME, Loaded, load
from bedplate.usecase.problems import Problem
from bedplate.usecase.types import UseCase

__all__ = ["FILE_NAME", "Loaded", "Problem", "UseCase", "load"]
