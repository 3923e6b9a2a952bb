"""The laboratory bench, and one module for each lab."""

__all__: list[str] = []
