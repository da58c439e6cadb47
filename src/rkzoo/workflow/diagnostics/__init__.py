"""What is wrong with a machine, a board or a file."""
