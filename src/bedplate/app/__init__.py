"""Wiring and the story: the composition root, the flow, and what the edges ask for."""
