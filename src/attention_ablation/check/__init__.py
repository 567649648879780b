"""What a gate must pass before networks are trained with it."""
