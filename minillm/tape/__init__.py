"""Arrays on a tape: what stands behind `minillm.gradients`."""

__all__: list[str] = []
