"""What everything stands on: error sentences, files, YAML, and strict records."""
