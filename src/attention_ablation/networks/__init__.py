"""Classification networks, one family a file."""
