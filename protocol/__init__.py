"""What a site and the server agree on to the byte."""
