"""Principals, keys, sessions and login links."""

from bedplate.identity.identity import ADMINISTRATORS, Identity, Principal, policy_principal

__all__ = ["ADMINISTRATORS", "Identity", "Principal", "policy_principal"]
