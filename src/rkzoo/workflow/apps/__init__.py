"""Applications: video streams, microphones, search, the demo."""
