"""Speed of a model: benchmark and estimate."""
