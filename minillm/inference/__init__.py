"""The depth of chapter 6: the fast decoder, chats, and what a model attends to."""

__all__: list[str] = []
