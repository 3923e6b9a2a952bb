r"""The numbers that fix the shape of a language model.

Everything else in the course is computed from them: the weights of
[`minillm.model`][], the FLOPs of [`minillm.flops`][], the `config.json` that other
programs read. They live in a module of their own, without PyTorch, because counting
must not need the machinery that trains.
"""

from dataclasses import dataclass, fields

__all__ = ["ModelConfig"]


@dataclass(frozen=True)
class ModelConfig:
    r"""The shape of a Transformer language model.

    Args:
        vocab_size: $V$, the number of token ids.
        context_length: $T$, the longest sequence that the model reads, in tokens.
        d_model: $d$, the width of the residual stream.
        n_layers: $L$, the number of blocks.
        n_heads: $H$, the number of query heads. Divides `d_model`; the quotient
            $d_h = d / H$ is even, since rotary embeddings turn pairs of numbers.
        n_kv_heads: $H_{kv}$, the number of key and value heads. Divides `n_heads`;
            `None` means as many as query heads.
        d_ff: $d_{ff}$, the hidden width of the feed-forward network. `None` means
            $\frac{8}{3} d$, rounded up to a multiple of 64.
        rope_theta: the base of the rotary frequencies, positive.
        norm_eps: what RMSNorm adds under the root, positive.
        tie_embeddings: whether the output head is the embedding matrix itself.

    Raises:
        ValueError: if a size is not positive, or does not divide as it must.

    Examples:
        Two numbers may be left out, and are then filled in:

        >>> config = ModelConfig(
        ...     vocab_size=2048, context_length=128, d_model=128, n_layers=4, n_heads=4
        ... )
        >>> config.n_kv_heads, config.d_ff, config.d_head
        (4, 384, 32)

        Sizes that do not fit together are refused at once:

        >>> ModelConfig(2048, 128, d_model=96, n_layers=4, n_heads=5)
        Traceback (most recent call last):
        ValueError: d_model=96 is not a multiple of n_heads=5: change one of them
    """

    vocab_size: int
    context_length: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int = None  # type: ignore[assignment]  # None until __post_init__
    d_ff: int = None  # type: ignore[assignment]  # None until __post_init__
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    tie_embeddings: bool = False

    def __post_init__(self) -> None:
        # The dataclass is frozen for its users, so the two defaults that depend on
        # other fields are set past the lock, once, here.
        if self.n_kv_heads is None:
            object.__setattr__(self, "n_kv_heads", self.n_heads)
        if self.d_ff is None:
            object.__setattr__(self, "d_ff", -(-8 * self.d_model // (3 * 64)) * 64)
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is int and (type(value) is not int or value < 1):
                raise ValueError(f"{field.name} must be a positive int; got {value!r}")
            if field.type is float and not value > 0:
                raise ValueError(f"{field.name} must be positive; got {value!r}")
        for whole, part in [("d_model", "n_heads"), ("n_heads", "n_kv_heads")]:
            if getattr(self, whole) % getattr(self, part):
                raise ValueError(
                    f"{whole}={getattr(self, whole)} is not a multiple of "
                    f"{part}={getattr(self, part)}: change one of them"
                )
        if self.d_head % 2:
            raise ValueError(
                f"d_head = d_model / n_heads must be even, since RoPE turns pairs; got "
                f"{self.d_model} / {self.n_heads} = {self.d_head}: change n_heads"
            )

    @property
    def d_head(self) -> int:
        r"""$d_h = d / H$, the width of one head."""
        return self.d_model // self.n_heads
