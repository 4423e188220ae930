"""The page of `mumc-site ui`, a module for each of its tabs, and what they show."""
