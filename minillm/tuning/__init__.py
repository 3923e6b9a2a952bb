"""The depth of chapter 11: its losses, and the distance from a start."""

__all__: list[str] = []
