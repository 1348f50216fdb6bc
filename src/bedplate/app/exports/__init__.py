"""What another platform needs to serve what a home serves: pure functions from facts to files."""
