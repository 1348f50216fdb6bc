"""Principals, keys, sessions, login links and tickets."""

from bedplate.identity.identity import ADMINISTRATORS, Identity, Principal
from bedplate.identity.tickets import Tickets

__all__ = ["ADMINISTRATORS", "Identity", "Principal", "Tickets"]
