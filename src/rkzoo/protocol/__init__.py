"""What goes over the wire between a server and its clients; both ends import it."""
