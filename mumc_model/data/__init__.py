"""From a site's folder to batches."""
