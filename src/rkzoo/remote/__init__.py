"""A board at the other end of a cable, from the PC."""
