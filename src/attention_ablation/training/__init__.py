"""Training a run, resumed where it was interrupted."""
