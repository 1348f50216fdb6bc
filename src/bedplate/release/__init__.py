"""From a candidate to a signed, approved model version: gates, packaging, approval, and the life of a version."""

from bedplate.release.approval import Vote, approve
from bedplate.release.gates import Security, evaluate
from bedplate.release.package import Version, inspect, package

__all__ = ["Security", "Version", "Vote", "approve", "evaluate", "inspect", "package"]
