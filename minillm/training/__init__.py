"""Training in depth: what stands behind `minillm.train`."""

__all__: list[str] = []
