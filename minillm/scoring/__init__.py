"""The depth of chapter 12: tries, intervals, choices, and questions in a file."""

__all__: list[str] = []
