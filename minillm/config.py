r"""The numbers that fix the shape of a language model.

Everything else in the course is computed from them: the weights of
[`minillm.model`][], the FLOPs of [`minillm.flops`][], the `config.json` that other
programs read. They live in a module of their own, without PyTorch, because counting
must not need the machinery that trains.

By now every letter has been met: vectors and heads in [`minillm.attention`][], rotary
positions in [`minillm.rope`][], the residual stream and the rest in
[`minillm.model`][]. Here they stand in one list.
"""

import math
from dataclasses import dataclass, fields

__all__ = ["DEMO", "VOCAB_SIZE", "LinearScaling", "ModelConfig", "RopeScaling"]

VOCAB_SIZE = 2048
"""How many tokens a vocabulary has unless you say otherwise; the demo's has as many."""


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
        rope_scaling: how rotary positions are stretched; `None` leaves them alone.

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
    rope_scaling: "LinearScaling | RopeScaling | None" = None

    def __post_init__(self) -> None:
        # The dataclass is frozen for its users, so the two defaults that depend on
        # other fields are set past the lock, once, here.
        if self.n_kv_heads is None:
            object.__setattr__(self, "n_kv_heads", self.n_heads)
        if self.d_ff is None:
            # $d_{ff} = 64 \lceil \frac{8}{3} d / 64 \rceil$; dividing the negative
            # number rounds up, where `//` alone rounds down.
            object.__setattr__(self, "d_ff", -(-8 * self.d_model // (3 * 64)) * 64)
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is int and (type(value) is not int or value < 1):
                raise ValueError(
                    f"{field.name} must be a positive int; got {value!r:.80}"
                )
            if field.type is float and not value > 0:
                raise ValueError(f"{field.name} must be positive; got {value!r:.80}")
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


@dataclass(frozen=True)
class RopeScaling:
    r"""How Llama 3.1 stretches rotary positions over a longer context.

    A model that was trained on $T_0$ tokens has never seen a pair of numbers turn
    further than it does in $T_0$ positions. Pairs that turn many times in between know
    every angle; a pair that has not yet turned once meets new angles in a longer text.
    So the fast pairs stay as they are, the slow ones are slowed by a factor, which
    brings them back to angles that they know, and those in between change over
    gradually. (Llama 3.1's `rope_scaling`, called `llama3` in its configuration.)

    Args:
        factor: how many times slower the slow pairs turn.
        low_freq_factor: a pair is slow if it turns fewer times than this in $T_0$.
        high_freq_factor: a pair is fast if it turns more often than this.
        original_context_length: $T_0$, in tokens.

    Raises:
        ValueError: if a number is not positive, or the last two are not in order.

    Examples:
        Llama 3.1 was trained on 8192 tokens and reads 131,072. Turns in 8192 tokens,
        and by what the speed is divided:

        >>> scaling = RopeScaling(8.0, 1.0, 4.0, 8192)
        >>> for turns in (0.5, 1.0, 2.0, 3.0, 4.0, 100.0):
        ...     speed = 2 * math.pi * turns / 8192
        ...     print(turns, round(speed / scaling.slow(speed), 2))
        0.5 8.0
        1.0 8.0
        2.0 2.4
        3.0 1.41
        4.0 1.0
        100.0 1.0
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context_length: int

    def __post_init__(self) -> None:
        _check_positive(self)
        if self.low_freq_factor >= self.high_freq_factor:
            raise ValueError(
                f"low_freq_factor={self.low_freq_factor} must be less than "
                f"high_freq_factor={self.high_freq_factor}"
            )

    def slow(self, speed: float) -> float:
        r"""Slow one pair down.

        Args:
            speed: $\theta_j$, the angle from one position to the next.

        Returns:
            The new angle.
        """
        turns = speed * self.original_context_length / (2 * math.pi)
        # 0 for a slow pair, 1 for a fast one, and a straight line between them
        kept = (turns - self.low_freq_factor) / (
            self.high_freq_factor - self.low_freq_factor
        )
        kept = min(max(kept, 0.0), 1.0)
        return kept * speed + (1 - kept) * speed / self.factor


@dataclass(frozen=True)
class LinearScaling:
    r"""Rotary positions, all stretched alike: position 8 is turned as 1 was.

    The older way to a longer context, called `linear` in a configuration ("position
    interpolation", Chen et al. 2023, arXiv:2306.15595, section 2.3). Every pair meets
    only angles that it knows, but neighbours become harder to tell apart, so a model
    has to be trained a little more.

    Args:
        factor: by what every angle is divided.

    Raises:
        ValueError: if the factor is not positive.

    Examples:
        >>> LinearScaling(8.0).slow(1.0)
        0.125
    """

    factor: float

    def __post_init__(self) -> None:
        _check_positive(self)

    def slow(self, speed: float) -> float:
        r"""Slow one pair down.

        Args:
            speed: $\theta_j$, the angle from one position to the next.

        Returns:
            The new angle.
        """
        return speed / self.factor


def _check_positive(scaling: LinearScaling | RopeScaling) -> None:
    for field in fields(scaling):
        value = getattr(scaling, field.name)
        if not 0 < value < math.inf:
            raise ValueError(f"{field.name} must be positive; got {value!r}")


DEMO = ModelConfig(VOCAB_SIZE, context_length=128, d_model=128, n_layers=2, n_heads=4)
"""The shape of the demo's model, of a million weights."""
