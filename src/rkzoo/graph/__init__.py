"""Model files as data."""
