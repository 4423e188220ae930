"""Pages for people who do not live in a terminal: they show what the commands compute, on this machine only."""
