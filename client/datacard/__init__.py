"""The data card: what a site holds, counted and looked at before anything is trained, and what of that may leave."""
