"""A chapter in the terminal."""

__all__: list[str] = []
