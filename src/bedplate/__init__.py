"""Bedplate carries an AI use case from its objective to served predictions, with evidence at every step."""
