"""Durable steps: what was finished stays finished, whatever is killed."""
