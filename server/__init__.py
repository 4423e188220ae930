"""The aggregator's side."""
