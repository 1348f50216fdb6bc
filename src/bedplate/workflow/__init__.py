"""Durable steps: what was finished stays finished, whatever is killed."""

from bedplate.workflow.engine import Engine, Step
from bedplate.workflow.owner import Owner

__all__ = ["Engine", "Owner", "Step"]
