"""Built .rknn files: read and judged, on a board too."""
