"""Embeddings: similarity of images, words and texts."""
