"""The depth of chapters 4 and 5: the tape, losses, optimizers, checkpoints, tuning."""

__all__: list[str] = []
