"""Whether to retrain, and why."""
