r"""The shapes of published models, and how many parameters each has.

Before anything can be counted, one must know what there is. A handful of integers fixes
every matrix of a Transformer, and the chapter [`minillm.flops`][] computes all its
numbers from them. This module holds those integers for models that others have trained,
and counts their parameters, because that is the one figure that everybody publishes and
that we can therefore check.

>>> round(param_count(preset("gpt2")).total / 1e6)
124
>>> [round(param_count(preset(f"llama2-{n}")).total / 1e9, 1) for n in ("7b", "70b")]
[6.7, 69.0]

A "7B" model has 6.7 billion parameters: names round, and a budget computed from a name
is off by as much.

**Total and active.** Most large models since 2024 are *mixtures of experts*: each layer
has several feed-forward networks, the experts, and a small matrix, the *router*, picks
a few of them for each token (Shazeer et al. 2017, arXiv:1701.06538). Such a model has
two sizes. All its parameters need memory; only the *active* ones, those that one token
meets, cost computation. Mixtral has 47 billion and uses 13 (Jiang et al. 2024,
arXiv:2401.04088, section 1):

>>> mixtral = param_count(preset("mixtral-8x7b"))
>>> round(mixtral.total / 1e9, 1), round(mixtral.active / 1e9, 1)
(46.7, 12.9)

"8x7B" is neither: attention and embeddings exist once, not eight times.

**Before this:** [`minillm.flops`][]. **Next:** [`minillm.accounting.memory`][].
"""

from dataclasses import asdict, dataclass
from math import inf
from typing import Any, Literal

from minillm.config import ModelConfig

__all__ = [
    "PRESETS",
    "Architecture",
    "ParamCount",
    "Recompute",
    "as_architecture",
    "param_count",
    "preset",
]


Recompute = bool | Literal["full", "early_stop"]
"""How much of the forward pass is computed twice to save memory: nothing (`False`), or
as [`training_flops`][minillm.flops.training_flops] says."""


@dataclass(frozen=True)
class Architecture:
    r"""The shape of a model to be counted, ours or another.

    [`ModelConfig`][minillm.config.ModelConfig] describes the model of this course.
    Other models differ from it in little that costs: older ones have two matrices in
    the feed-forward network instead of three, learn a vector for each position instead
    of rotating by an angle, and add biases; newer ones have several experts in each
    layer. Functions with an argument `config` take either kind.

    Args:
        vocab_size: $V$, the number of token ids.
        context_length: $T$, the longest sequence, in tokens.
        d_model: $d$, the width of the residual stream.
        n_layers: $L$, the number of blocks.
        n_heads: $H$, the number of query heads; divides `d_model`.
        n_kv_heads: $H_{kv}$, the number of key and value heads; `None` means $H$.
        d_ff: $d_{ff}$, the hidden width of the feed-forward network; `None` means $4d$
            with two matrices, and the default of `ModelConfig` with three.
        mlp_matrices: 3 for SwiGLU, 2 for the classical pair around a nonlinearity.
        tie_embeddings: whether the output head is the embedding matrix itself.
        biases: whether linear layers (but not the head) and norms add a bias.
        position_rows: how many positions have a learned vector; 0 for rotary ones.
        n_experts: $E$, feed-forward networks in each layer, each of width `d_ff`.
        n_active: $k$, how many of them each token meets; from 1 to $E$.

    Raises:
        ValueError: if a size is not positive, or does not divide as it must.

    Examples:
        >>> Architecture(100, 16, 32, n_layers=2, n_heads=4, mlp_matrices=2).d_ff
        128
        >>> Architecture(100, 16, 32, n_layers=2, n_heads=4, mlp_matrices=4)
        Traceback (most recent call last):
        ValueError: mlp_matrices must be 2 (classical) or 3 (SwiGLU); got 4
    """

    vocab_size: int
    context_length: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int = None  # type: ignore[assignment]  # None until __post_init__
    d_ff: int = None  # type: ignore[assignment]  # None until __post_init__
    mlp_matrices: int = 3
    tie_embeddings: bool = False
    biases: bool = False
    position_rows: int = 0
    n_experts: int = 1
    n_active: int = 1

    def __post_init__(self) -> None:
        if self.mlp_matrices not in {2, 3}:
            raise ValueError(
                "mlp_matrices must be 2 (classical) or 3 (SwiGLU); "
                f"got {self.mlp_matrices!r}"
            )
        if type(self.position_rows) is not int or self.position_rows < 0:
            raise ValueError(
                f"position_rows must be an int, 0 or more; got {self.position_rows!r}"
            )
        experts = self.n_active, self.n_experts
        if set(map(type, experts)) != {int} or not 1 <= experts[0] <= experts[1]:
            raise ValueError(
                "a token meets n_active of n_experts experts, so they are ints with "
                f"1 <= n_active <= n_experts; got {experts[0]!r} of {experts[1]!r}"
            )
        given: dict[str, Any] = {"n_kv_heads": self.n_kv_heads, "d_ff": self.d_ff}
        if self.d_ff is None and self.mlp_matrices == 2:
            given["d_ff"] = 4 * self.d_model
        # ModelConfig knows the rules that these models share, and fills in the rest.
        shape = ModelConfig(
            self.vocab_size,
            self.context_length,
            self.d_model,
            self.n_layers,
            self.n_heads,
            **{name: size for name, size in given.items() if size is not None},
        )
        object.__setattr__(self, "n_kv_heads", shape.n_kv_heads)
        object.__setattr__(self, "d_ff", shape.d_ff)

    @property
    def d_head(self) -> int:
        r"""$d_h = d / H$, the width of one head."""
        return self.d_model // self.n_heads

    @property
    def d_kv(self) -> int:
        r"""$H_{kv}\,d_h$, the width of all keys, or all values, of one position."""
        return self.n_kv_heads * self.d_head


def as_architecture(config: ModelConfig | Architecture) -> Architecture:
    """Write either kind of configuration as an `Architecture`.

    Args:
        config: the shape of our model, or one that is an `Architecture` already.

    Returns:
        The architecture.

    Examples:
        >>> as_architecture(ModelConfig(100, 16, 32, 2, 4)).mlp_matrices
        3
    """
    if isinstance(config, Architecture):
        return config
    return Architecture(
        config.vocab_size,
        config.context_length,
        config.d_model,
        config.n_layers,
        config.n_heads,
        config.n_kv_heads,
        config.d_ff,
        tie_embeddings=config.tie_embeddings,
    )


@dataclass(frozen=True)
class ParamCount:
    r"""How many parameters each part of a model has.

    Attributes:
        embedding: the table of token vectors.
        positions: the learned vectors of positions, if there are any.
        projections: the four matrices of attention, over all layers.
        ffn: the matrices of the feed-forward network, over all layers.
        head: the output matrix; 0 where it is the embedding table itself.
        norms: the factors of the norms.
        biases: everything that is added and not multiplied.
        head_product: the size of the matrix that the head multiplies by, tied or not.
        router: the matrices that pick experts; 0 where there is nothing to pick.
        idle: those of the experts that a token does not meet.
    """

    embedding: int
    positions: int
    projections: int
    ffn: int
    head: int
    norms: int
    biases: int
    head_product: int
    router: int = 0
    idle: int = 0

    @property
    def total(self) -> int:
        """All parameters, each once."""
        shown = self.embedding + self.positions + self.projections + self.ffn
        return shown + self.head + self.norms + self.biases + self.router

    @property
    def active(self) -> int:
        """Those that one token meets: all, unless there are several experts."""
        return self.total - self.idle

    @property
    def non_embedding(self) -> int:
        """All but tokens, positions and head, as Kaplan et al. (2020) count them."""
        return self.total - self.embedding - self.positions - self.head

    @property
    def in_products(self) -> int:
        """Those that enter a product for each token, and therefore cost FLOPs."""
        ffn = self.ffn + self.router - self.idle
        return self.projections + ffn + self.head_product

    def as_dict(self) -> dict[str, int]:
        """The parts and the sums, under their names."""
        sums = {
            name: getattr(self, name)
            for name in ("total", "active", "non_embedding", "in_products")
        }
        return {**asdict(self), **sums}


def param_count(config: ModelConfig | Architecture) -> ParamCount:
    r"""Count the parameters of a model, part by part.

    | part | matrices | parameters |
    |---|---|---|
    | embedding | $V \times d$ | $Vd$ |
    | queries and output, each layer | two of $d \times d$ | $2d^2$ |
    | keys and values, each layer | two of $d \times H_{kv} d_h$ | $2d\,H_{kv} d_h$ |
    | feed-forward, each layer | three of $d \times d_{ff}$ | $3d\,d_{ff}$ |
    | with $E$ experts | $E$ times as many, and a router | $3E\,d\,d_{ff} + dE$ |
    | norms | two in each layer, one at the end | $(2L + 1)\,d$ |
    | head | $d \times V$, or none if tied | $Vd$ or 0 |

    Args:
        config: the shape of the model.

    Returns:
        The breakdown, with `.total`.

    Examples:
        GPT-2 small has 124,439,808 parameters. Andrej Karpathy's sizing notebook for
        nanoGPT, which leaves the biases out, prints 124,337,664:

        >>> from dataclasses import replace
        >>> param_count(preset("gpt2")).total
        124439808
        >>> param_count(replace(preset("gpt2"), biases=False)).total
        124337664

        Almost a third of them are the table of token vectors. At 175 billion, the same
        table is a third of a *percent*:

        >>> def share(name):
        ...     count = param_count(preset(name))
        ...     return f"{count.embedding / count.total:.1%}"
        >>> share("gpt2"), share("gpt3")
        ('31.0%', '0.4%')
    """
    c = as_architecture(config)
    d, f, n_norms = c.d_model, c.d_ff, 2 * c.n_layers + 1
    expert = c.mlp_matrices * d * f
    # One bias for each output of a linear layer, and one for each factor of a norm.
    outputs = (2 * d + 2 * c.d_kv) + c.n_experts * ((c.mlp_matrices - 1) * f + d)
    return ParamCount(
        embedding=c.vocab_size * d,
        positions=c.position_rows * d,
        projections=c.n_layers * (2 * d * d + 2 * d * c.d_kv),
        ffn=c.n_layers * c.n_experts * expert,
        head=0 if c.tie_embeddings else c.vocab_size * d,
        norms=n_norms * d,
        biases=(c.n_layers * outputs + n_norms * d) if c.biases else 0,
        head_product=c.vocab_size * d,
        router=c.n_layers * d * c.n_experts * (c.n_experts > 1),
        idle=c.n_layers * (c.n_experts - c.n_active) * expert,
    )


def _gpt(
    vocab: int, context: int, d: int, layers: int, heads: int, rows: int
) -> Architecture:
    # GPT-2, GPT-3 and OPT differ in their sizes only.
    return Architecture(
        vocab,
        context,
        d,
        layers,
        heads,
        mlp_matrices=2,
        tie_embeddings=True,
        biases=True,
        position_rows=rows,
    )


PRESETS: dict[str, Architecture] = {
    # The smallest is what `make demo` trains.
    "demo": Architecture(2048, 128, 128, 2, 4),
    # Radford et al. 2019, table 2; vocabulary and context from the released weights.
    "gpt2": _gpt(50257, 1024, 768, 12, 12, 1024),
    "gpt2-medium": _gpt(50257, 1024, 1024, 24, 16, 1024),
    "gpt2-large": _gpt(50257, 1024, 1280, 36, 20, 1024),
    "gpt2-xl": _gpt(50257, 1024, 1600, 48, 25, 1024),
    # Brown et al. 2020 (arXiv:2005.14165), table 2.1.
    "gpt3": _gpt(50257, 2048, 12288, 96, 96, 2048),
    # Zhang et al. 2022 (arXiv:2205.01068), table 1. Two rows more than positions, since
    # the first two are reserved. The 350M is left out: it has its norms elsewhere and a
    # narrower embedding.
    "opt-125m": _gpt(50272, 2048, 768, 12, 12, 2050),
    "opt-1.3b": _gpt(50272, 2048, 2048, 24, 32, 2050),
    "opt-2.7b": _gpt(50272, 2048, 2560, 32, 32, 2050),
    "opt-6.7b": _gpt(50272, 2048, 4096, 32, 32, 2050),
    "opt-13b": _gpt(50272, 2048, 5120, 40, 40, 2050),
    "opt-30b": _gpt(50272, 2048, 7168, 48, 56, 2050),
    "opt-66b": _gpt(50272, 2048, 9216, 64, 72, 2050),
    "opt-175b": _gpt(50272, 2048, 12288, 96, 96, 2050),
    # Touvron et al. 2023 (arXiv:2307.09288) and the configurations of the weights.
    "llama2-7b": Architecture(32000, 4096, 4096, 32, 32, 32, 11008),
    "llama2-13b": Architecture(32000, 4096, 5120, 40, 40, 40, 13824),
    "llama2-70b": Architecture(32000, 4096, 8192, 80, 64, 8, 28672),
    # Llama team 2024 (arXiv:2407.21783), table 3: the models called Llama 3.1.
    "llama3-8b": Architecture(128256, 131072, 4096, 32, 32, 8, 14336),
    "llama3-70b": Architecture(128256, 131072, 8192, 80, 64, 8, 28672),
    "llama3-405b": Architecture(128256, 131072, 16384, 126, 128, 8, 53248),
    # Jiang et al. 2024 (arXiv:2401.04088), table 1: two of eight experts a token.
    "mixtral-8x7b": Architecture(
        32000, 32768, 4096, 32, 32, 8, 14336, n_experts=8, n_active=2
    ),
}
"""Shapes of published models by name, to be counted, not to be trained here."""


def preset(name: str) -> Architecture:
    """Look up a published shape by its name.

    Args:
        name: a key of `PRESETS`, in capitals or not.

    Returns:
        The shape.

    Raises:
        ValueError: if there is none of this name; the message gives the nearest.

    Examples:
        >>> preset("GPT2-XL").d_model
        1600
        >>> preset("gpt2-huge")
        Traceback (most recent call last):
        ValueError: no preset 'gpt2-huge'; the nearest: gpt2-large, gpt2-xl, gpt2
    """
    shape = PRESETS.get(name.lower())
    if shape is None:
        # Only a mistake needs this module, so only a mistake pays for importing it.
        from difflib import get_close_matches

        near = get_close_matches(name.lower(), PRESETS, n=3, cutoff=0.4) or PRESETS
        raise ValueError(f"no preset {name!r}; the nearest: {', '.join(near)}")
    return shape


def check_positive(**values: float) -> None:
    """Refuse what is not a finite number above zero.

    Args:
        values: the numbers, under the names that the message should use.

    Raises:
        ValueError: if one of them is zero, negative, infinite or not a number.
    """
    for name, value in values.items():
        if not 0 < value < inf:
            raise ValueError(f"{name} must be above zero and finite; got {value!r}")


def check_sizes(**values: int) -> None:
    """Refuse what cannot be a size.

    Args:
        values: the sizes, under the names that the message should use.

    Raises:
        ValueError: if one of them is not an int above zero.
    """
    for name, value in values.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} must be a positive int; got {value!r}")
