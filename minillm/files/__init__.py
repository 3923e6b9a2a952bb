"""Writing whole files, and reading those that somebody else wrote."""

__all__: list[str] = []
