"""How fast a model is: measured, or estimated."""
