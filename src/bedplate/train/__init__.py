"""Recipes that turn features into models, with honest baselines and intervals."""
