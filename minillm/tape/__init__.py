"""Arrays on a tape: what stands behind `minillm.gradients`."""
