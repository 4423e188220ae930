"""Was joining worth it? One page that a hospital's board can read, of what was measured and what was not."""
