"""What is to be trained: config, study, tier, rows, specs and run folders. Imports no torch."""
