"""Secure aggregation: the server learns the weighted sum of the sites' updates, and no update."""
