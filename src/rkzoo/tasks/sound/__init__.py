"""Audio event classification and voice activity detection."""
