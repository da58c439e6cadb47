"""From what the user said to a graph, a contract and settings."""
