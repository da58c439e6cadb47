"""From a name or a file to something that answers."""
