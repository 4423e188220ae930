"""The page of `mumc-privacy ui`, a module for each of its tabs."""
