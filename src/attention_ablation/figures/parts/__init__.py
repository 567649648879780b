"""What figures are made of; unlike the kinds of figures, it may import what it needs to draw."""
