"""Training in depth: what stands behind `minillm.train`."""
