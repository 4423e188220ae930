"""Hydra groups in YAML, and the loader that turns a composed node into a frozen dataclass."""
