"""A run's identity: everything that can change its result."""
