"""Regenerate a deep-learning paper's tables with one command."""

import time

__version__ = "0.1.0"

# When this process began, as near as Python code can tell; a run's metrics count from here.
STARTED = time.perf_counter()
