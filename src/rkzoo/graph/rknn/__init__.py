"""Built .rknn files: reader and checks, usable on a board."""
