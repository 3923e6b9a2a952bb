"""Figures, widgets and generated tables of the site."""

__all__: list[str] = []
