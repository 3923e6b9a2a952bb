r"""Bytes: what must fit into memory, to train a model and to run it.

**The question.** A run that needs more memory than there is does not go slower; it
stops, often after minutes, with a message that names a number and no reason. What takes
the space, and can one know before starting?

While a model *trains*, four things are kept. For each parameter: the weight itself, its
gradient, and what the optimizer remembers of it (AdamW: two running means). For each
token of the batch: the *activations*, intermediate results of the forward pass that the
backward pass will ask for. While it *runs*, two are left: the weights, and the keys and
values of the tokens read so far.

>>> from minillm.accounting.shapes import preset
>>> for batch_size in (1, 64):
...     memory = training_memory(preset("gpt2"), batch_size, 1024)
...     share = memory.activations / memory.total
...     print(batch_size, f"{memory.total / 1e9:.1f} GB, {share:.0%} activations")
1 2.9 GB, 32% activations
64 61.7 GB, 97% activations

So the answer to "out of memory" depends on what takes the space. If it is activations,
a smaller batch or recomputation helps; if it is the parameters, neither does.

**Before this:** [`minillm.flops`][]; [`minillm.accounting.shapes`][] has the models by
name. **Next:** [`minillm.accounting.cost`][].
"""

from dataclasses import asdict, dataclass

from minillm.accounting.shapes import (
    Architecture,
    Recompute,
    as_architecture,
    check_positive,
    check_sizes,
    param_count,
)
from minillm.config import ModelConfig

__all__ = [
    "InferenceMemory",
    "TrainingMemory",
    "bytes_moved",
    "inference_memory",
    "saved_activations",
    "training_memory",
]


def saved_activations(
    config: ModelConfig | Architecture,
    seq_len: int,
    *,
    fused_attention: bool = True,
    fused_norms: bool = False,
) -> dict[str, int]:
    r"""Count the numbers that one layer keeps for the backward pass, for each token.

    To differentiate $Y = XW$ by $W$ one needs $X$: so every product keeps its input.
    Other operations keep what their derivative is made of. Operations that only add
    keep nothing: the derivative of a sum is one.

    | kept by | what | numbers |
    |---|---|---|
    | each of two norms | its input, the normalized input, one scale | $2d + 1$ |
    | queries, keys, values | their common input | $d$ |
    | attention | queries, keys, values | $d + 2H_{kv}d_h$ |
    | | its result, one normalizer for each head | $d + H$ |
    | output | its input: that result, laid out anew | $d$ |
    | in and gate | their common input | $d$ |
    | gating | the gate before and after `silu`, and what it gates | $3d_{ff}$ |
    | out | its input | $d_{ff}$ |

    Attention in one fused kernel computes its weights twice rather than keep them.
    Written as in the formula, it keeps $H \cdot T$ weights for each token, and copies
    of keys and values for every query head: that is what ends long contexts.

    PyTorch on a CPU composes a norm of smaller operations, which keep the input and the
    normalized input. Differentiated as a whole, it needs only one of them and the
    scale, $d + 1$ numbers: the other is a product of the two.

    Args:
        config: the shape of the model.
        seq_len: $T$, how many tokens in a sequence.
        fused_attention: whether attention runs in one fused kernel.
        fused_norms: whether a norm is differentiated as a whole, as by a fused kernel
            or on [the tape][minillm.training.layers.rms_norm].

    Returns:
        Numbers for each token of one layer, by what keeps them. A model with two
        matrices in its feed-forward network keeps $2d_{ff}$ there.

    Examples:
        >>> config = ModelConfig(100, 16, d_model=8, n_layers=2, n_heads=2, d_ff=24)
        >>> saved_activations(config, seq_len=16)
        {'norms': 34, 'projections': 16, 'attention': 34, 'ffn': 104}
        >>> saved_activations(config, seq_len=16, fused_attention=False)["attention"]
        56
    """
    c = as_architecture(config)
    attention = 2 * c.d_model + 2 * c.d_kv + c.n_heads
    if not fused_attention:
        attention = 3 * c.d_model + c.n_heads * seq_len
    # Of several experts, those that a token meets; and the router its scores.
    hidden = (4 if c.mlp_matrices == 3 else 2) * c.d_ff * c.n_active
    if c.n_experts > 1:
        hidden += c.n_experts
    return {
        "norms": 2 * _norm(c.d_model, fused_norms),
        "projections": 2 * c.d_model,
        "attention": attention,
        "ffn": c.d_model + hidden,
    }


def _norm(d: int, fused: bool) -> int:
    """What a norm keeps: its input, the normalized input, or one of them; a scale."""
    return (1 if fused else 2) * d + 1


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes that a training step keeps.

    Attributes:
        weights: the parameters.
        gradients: one for each parameter.
        optimizer: what the optimizer remembers.
        activations: what the backward pass will ask for.
    """

    weights: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def total(self) -> float:
        """All four."""
        return self.weights + self.gradients + self.optimizer + self.activations

    def as_dict(self) -> dict[str, float]:
        """The parts and the total, under their names."""
        return {**asdict(self), "total": self.total}


def training_memory(
    config: ModelConfig | Architecture,
    batch_size: int,
    seq_len: int,
    *,
    recompute: Recompute = False,
    fused_attention: bool = True,
    fused_norms: bool = False,
    weight_bytes: float = 4,
    gradient_bytes: float = 4,
    optimizer_bytes: float = 8,
    activation_bytes: float = 4,
) -> TrainingMemory:
    r"""Count the bytes that a step of training keeps.

    Besides the activations of the [layers][minillm.accounting.memory.saved_activations]
    there are those of the end of the model, which a small model feels most: the last
    norm, the input of the head, and the log-probabilities of all $V$ tokens at every
    position. Ids and targets are integers of 8 bytes.

    Counted is what is *kept*, and it agrees within 5 % with what PyTorch keeps of our
    model on a CPU. The peak is higher: gradients of activations come and go during the
    backward pass, the largest being that of the logits. Buffers of kernels and what the
    allocator loses are not known here.

    Args:
        config: the shape of the model.
        batch_size: $B$, how many sequences.
        seq_len: $T$, how many tokens in each.
        recompute: whether (in either way) each block keeps only its input, and computes
            the rest again when its turn comes. Then one block at a time has all its
            activations.
        fused_attention: whether attention runs in one fused kernel.
        fused_norms: whether a norm is differentiated as a whole.
        weight_bytes: for each parameter.
        gradient_bytes: for each parameter.
        optimizer_bytes: for each parameter; AdamW keeps two numbers.
        activation_bytes: for each activation.

    Returns:
        The breakdown, with `.total`.

    Raises:
        ValueError: if a size is not positive.

    Examples:
        In float32 with AdamW, each parameter takes 16 bytes before the first token:

        >>> from minillm.accounting.shapes import preset
        >>> memory = training_memory(preset("gpt2"), batch_size=1, seq_len=1024)
        >>> kept = memory.weights + memory.gradients + memory.optimizer
        >>> kept == 16 * param_count(preset("gpt2")).total
        True

        Our trainer's mixed precision keeps all of these in float32. In another kind,
        usual in large runs, it is 16 again: 2 for the weight, 2 for the gradient, and
        12 for the optimizer, which keeps the exact weight too (Rajbhandari et al. 2019,
        arXiv:1910.02054, section 3.1). So a model of 175 billion parameters asks for
        2.8 terabytes, 35 times what one chip of 80 GB has:

        >>> memory = training_memory(
        ...     preset("gpt3"), 1, 2048, weight_bytes=2, gradient_bytes=2,
        ...     optimizer_bytes=12, activation_bytes=2,
        ... )
        >>> round((memory.total - memory.activations) / 80e9)
        35

        What recomputation saves, for a third more FLOPs:

        >>> big = preset("llama2-7b")
        >>> for recompute in (False, True):
        ...     memory = training_memory(big, 1, 4096, recompute=recompute)
        ...     print(f"{memory.activations / 1e9:.1f} GB")
        47.5 GB
        4.3 GB
    """
    check_sizes(batch_size=batch_size, seq_len=seq_len)
    check_positive(
        weight_bytes=weight_bytes,
        gradient_bytes=gradient_bytes,
        optimizer_bytes=optimizer_bytes,
        activation_bytes=activation_bytes,
    )
    c = as_architecture(config)
    n, tokens = param_count(c).total, batch_size * seq_len
    fused = {"fused_attention": fused_attention, "fused_norms": fused_norms}
    layer = sum(saved_activations(c, seq_len, **fused).values())
    # A recomputed block keeps its input, $d$ numbers, which is among those counted for
    # its first norm; one block has them all.
    layers = (c.n_layers - 1) * c.d_model + layer if recompute else c.n_layers * layer
    end = _norm(c.d_model, fused_norms) + c.d_model + c.vocab_size
    return TrainingMemory(
        weights=n * weight_bytes,
        gradients=n * gradient_bytes,
        optimizer=n * optimizer_bytes,
        activations=tokens * ((layers + end) * activation_bytes + 2 * 8),
    )


@dataclass(frozen=True)
class InferenceMemory:
    """Bytes that a model needs to write text.

    Attributes:
        weights: the parameters.
        kv_cache: keys and values of the tokens read so far.
    """

    weights: float
    kv_cache: float

    @property
    def total(self) -> float:
        """Both."""
        return self.weights + self.kv_cache

    def as_dict(self) -> dict[str, float]:
        """The parts and the total, under their names."""
        return {**asdict(self), "total": self.total}


def inference_memory(
    config: ModelConfig | Architecture,
    batch_size: int,
    seq_len: int,
    *,
    weight_bytes: float = 2,
    cache_bytes: float = 2,
) -> InferenceMemory:
    r"""Count the bytes that a model needs to write text.

    The weights, and for each token of each sequence one key and one value in every
    layer: $2L \cdot H_{kv} d_h$ numbers.

    Args:
        config: the shape of the model.
        batch_size: $B$, how many sequences are written side by side.
        seq_len: how many tokens each has room for.
        weight_bytes: for each parameter.
        cache_bytes: for each number of the cache.

    Returns:
        The breakdown, with `.total`.

    Raises:
        ValueError: if a size is not positive.

    Examples:
        One conversation at the full context of Llama 2: the 70B model, though ten times
        as large, has the smaller cache, because eight query heads share one head of
        keys and values.

        >>> from minillm.accounting.shapes import preset
        >>> for name in ("llama2-7b", "llama2-70b"):
        ...     memory = inference_memory(preset(name), batch_size=1, seq_len=4096)
        ...     print(round(memory.weights / 1e9, 1), round(memory.kv_cache / 1e9, 2))
        13.5 2.15
        138.0 1.34
    """
    check_sizes(batch_size=batch_size, seq_len=seq_len)
    check_positive(weight_bytes=weight_bytes, cache_bytes=cache_bytes)
    c = as_architecture(config)
    numbers = 2 * c.n_layers * batch_size * seq_len * c.d_kv
    return InferenceMemory(
        weights=param_count(c).total * weight_bytes, kv_cache=numbers * cache_bytes
    )


def bytes_moved(
    config: ModelConfig | Architecture,
    batch_size: int,
    seq_len: int,
    *,
    past: int = 0,
    bytes_per_number: float = 2,
) -> float:
    r"""Count the bytes that a forward pass has to move, at the least.

    A chip computes only on what it has fetched from its memory. However cleverly it
    goes about it, it must fetch every weight once for the batch, fetch the keys and
    values of the past of every sequence, and store those of the new tokens. Activations
    are not counted: a good kernel keeps most of them close. Of several experts, only
    those are counted that one token meets: the least, which a batch of tokens that
    disagree exceeds.

    Args:
        config: the shape of the model.
        batch_size: $B$, how many sequences.
        seq_len: $T$, how many new tokens in each.
        past: how many tokens each has in its KV cache already.
        bytes_per_number: 2 for 16-bit weights and cache.

    Returns:
        The bytes.

    Raises:
        ValueError: if a size is not positive.

    Examples:
        One token, one sequence, nothing before it: the weights of a 7B model, two bytes
        each.

        >>> from minillm.accounting.shapes import preset
        >>> print(f"{bytes_moved(preset('llama2-7b'), 1, 1) / 1e9:.1f} GB")
        13.2 GB
    """
    check_sizes(batch_size=batch_size, seq_len=seq_len)
    if past:
        check_sizes(past=past)
    check_positive(bytes_per_number=bytes_per_number)
    c = as_architecture(config)
    cache = 2 * c.n_layers * batch_size * (past + seq_len) * c.d_kv
    return bytes_per_number * (param_count(c).in_products + cache)
