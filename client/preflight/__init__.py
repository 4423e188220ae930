"""Whether a site can take part: what could stop it, looked at before the first run, each with its cause and remedy."""
