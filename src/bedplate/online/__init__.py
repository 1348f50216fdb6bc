"""The key-value port of online features."""
