"""What a plan costs: rates, hours, and the order that follows from them."""
