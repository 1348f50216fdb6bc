"""Principals, keys, sessions and login links."""
