"""The depth of chapter 11: preferences, and the distance from a start."""

__all__: list[str] = []
