"""The command `minillm`: one module for each group of commands."""

__all__: list[str] = []
