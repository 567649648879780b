"""From a spec to a run folder: the loop, the step and the schedule."""
