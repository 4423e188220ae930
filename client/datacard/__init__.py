"""The data card of a site: what it holds, counted and looked at before anything is trained, and what of that may leave."""
