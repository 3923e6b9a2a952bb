"""Folders and files of other programs, read with suspicion and written for them."""

__all__: list[str] = []
