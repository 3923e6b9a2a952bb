"""Depth behind [`minillm.generate`][]: faster ways to sample."""
