"""Diagnostics of boards, PCs and model files."""
