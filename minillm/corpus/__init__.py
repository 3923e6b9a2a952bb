"""The corpus: Andersen's fairy tales, and how texts are made ready for training."""
