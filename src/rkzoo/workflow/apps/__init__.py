"""What runs on and on, or over many files: streams, microphones, search, the demo."""
