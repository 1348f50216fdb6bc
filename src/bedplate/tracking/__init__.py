"""Experiments and runs: what was tried, with which code and libraries, and what came out."""

from bedplate.tracking.system import Code, SystemMetrics, code_of, environment_digest
from bedplate.tracking.training import Run, of_training, save

__all__ = ["Code", "Run", "SystemMetrics", "code_of", "environment_digest", "of_training", "save"]
