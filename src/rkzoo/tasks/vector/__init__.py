"""Numbers that answer a picture: an embedding, or what was measured."""
