"""The depth of chapters 4 and 5: losses, optimizers, batches, checkpoints, settings."""

__all__: list[str] = []
