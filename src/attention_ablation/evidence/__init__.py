"""What trained networks show: complexity, statistics, the claim ledger, Grad-CAM."""
