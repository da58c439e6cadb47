"""Comparison of one model on several backends, or in several dtypes."""
