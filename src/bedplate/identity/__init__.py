"""Principals, keys, sessions, login links and tickets."""

from bedplate.identity.identity import (
    ADMIN_KEY,
    ADMINISTRATOR,
    ADMINISTRATORS,
    By,
    Identity,
    Principal,
    group_names,
    policy_principal,
)
from bedplate.identity.tickets import Tickets

__all__ = [
    "ADMINISTRATOR",
    "ADMINISTRATORS",
    "ADMIN_KEY",
    "By",
    "Identity",
    "Principal",
    "Tickets",
    "group_names",
    "policy_principal",
]
