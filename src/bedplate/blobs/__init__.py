"""Artifacts by digest, on disk or in an object store."""
