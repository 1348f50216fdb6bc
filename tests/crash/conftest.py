"""The sample that the flow's tests use."""

from tests.flow.conftest import sample

__all__ = ["sample"]
