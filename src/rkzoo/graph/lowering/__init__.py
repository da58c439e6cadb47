"""A graph as the toolkit can build it, and the proof that it is still the same."""
