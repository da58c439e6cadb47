"""What is in a sound: when somebody speaks, and what else is heard."""
