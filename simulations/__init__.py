"""Federations on one machine: partitions, engines, experiments and their reports."""
