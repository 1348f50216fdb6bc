"""The file that a use case is written down in: types, loading, checking, JSON Schema."""
