"""The depth of generation and evaluation: fast decoding, chats, scores, intervals."""

__all__: list[str] = []
