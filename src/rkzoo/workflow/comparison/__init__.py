"""One model on several runtimes, or in several forms, and what differs."""
