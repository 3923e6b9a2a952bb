"""Depth behind [`minillm.evaluation`][]: intervals, and choices."""
