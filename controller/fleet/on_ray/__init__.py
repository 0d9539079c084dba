"""A fleet's workers on a Ray cluster: Ray places, restarts and moves them."""
