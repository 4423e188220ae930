"""Differential privacy at the site."""
