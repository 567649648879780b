"""Data sets: their records, what they require on disk, and how they load."""
