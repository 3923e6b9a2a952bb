"""Whole files, foreign files read with suspicion, models as other programs keep them."""

__all__: list[str] = []
