"""The depth of chapter 1: patterns, learning, encoding, streams, saved forms."""

__all__: list[str] = []
