"""From run folders to what a person reads: runs.csv, tables and curves."""
