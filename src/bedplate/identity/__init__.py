"""Principals, keys, sessions and login links."""

from bedplate.identity.identity import ADMINISTRATORS, Identity, Principal

__all__ = ["ADMINISTRATORS", "Identity", "Principal"]
