"""Sounds: reading, resampling, features. Imports nothing else of ours."""
