"""Embeddings: how alike pictures, words and texts are."""
