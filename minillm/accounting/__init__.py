"""The depth of chapter 7: shapes, memory, cost, and what the rumours imply."""

__all__: list[str] = []
