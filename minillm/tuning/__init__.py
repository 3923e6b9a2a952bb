"""Depth behind [`minillm.posttraining`][]: preferences, and the distance to a start."""
