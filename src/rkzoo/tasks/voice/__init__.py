"""Text to speech (TTS)."""
