"""The site's side."""
