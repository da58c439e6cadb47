"""Text in, the same in another language out."""
