"""The command line: one file per noun. Commands only convert and show; :mod:`bedplate.app` does the work."""

from bedplate.cli.root import main

__all__ = ["main"]
