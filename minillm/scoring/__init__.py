"""The depth of chapter 12: intervals, and choices."""

__all__: list[str] = []
