"""Data sets, one a file: record, what it requires on disk, how it loads. No torch on import."""
