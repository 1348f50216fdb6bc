"""Principals, keys, sessions, login links and tickets."""

from bedplate.identity.identity import ADMINISTRATORS, Identity, Principal, policy_principal
from bedplate.identity.tickets import Tickets

__all__ = ["ADMINISTRATORS", "Identity", "Principal", "Tickets", "policy_principal"]
