"""A run of training from its start to its result, and the demo."""

__all__: list[str] = []
