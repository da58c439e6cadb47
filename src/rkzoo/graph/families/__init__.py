"""Which network a graph is: each family asks the tail of its head."""
