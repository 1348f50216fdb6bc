"""Principals, keys, sessions and login links."""

from bedplate.identity.identity import ADMIN_KEY, ADMINISTRATOR, ADMINISTRATORS, By, Identity, Principal, group_names

__all__ = ["ADMINISTRATOR", "ADMINISTRATORS", "ADMIN_KEY", "By", "Identity", "Principal", "group_names"]
