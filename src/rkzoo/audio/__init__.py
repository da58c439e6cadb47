"""Audio: reading, resampling, features. Imports no tasks or workflows."""
