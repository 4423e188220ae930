"""Fine-tuning, evaluating and asking at a site's own command line; no server orders it or hears of it."""
