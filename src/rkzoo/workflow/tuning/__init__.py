"""The search for settings that keep accuracy in INT8."""
