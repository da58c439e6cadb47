"""Text in, a voice out."""
