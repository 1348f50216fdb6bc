"""The stages of the flow, by subject. Each file reads top to bottom: what it depends on, what it does, what it says."""
