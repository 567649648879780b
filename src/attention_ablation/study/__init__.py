"""What a user writes: config, studies, tiers, claims; and the plan that follows from them."""
