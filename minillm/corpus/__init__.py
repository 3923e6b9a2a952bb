"""The embedded tales, and how texts become token files."""

__all__: list[str] = []
