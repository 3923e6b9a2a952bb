"""Whole files, foreign files read with care, models as other programs keep them."""

__all__: list[str] = []
