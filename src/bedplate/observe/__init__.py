"""What served traffic shows: outcomes, drift, health."""
