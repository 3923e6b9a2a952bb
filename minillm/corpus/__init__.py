"""The embedded tales and crawl, and how pages become texts, and texts token files."""

__all__: list[str] = []
