"""The broker for outbound calls."""
