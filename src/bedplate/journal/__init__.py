"""Append-only segment files with durable and buffered modes."""
