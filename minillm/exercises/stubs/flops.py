r"""Exercises to chapter 7: accounting.

Each function takes the shape of a model, or of a run, and returns one number. Write it
in the place of its `raise NotImplementedError`, and ask, in
this folder:

    minillm exercises check flops.forward    # one of them
    minillm exercises check flops            # those of this file

A FLOP is one addition or one multiplication. Only matrix products are counted. A result
counts as right within 0.1 %, so norms and biases may be left out. The examples in the
docstrings are models that you know.
"""


def parameters(vocab_size: int, d: int, n_layers: int, d_ff: int) -> float:
    r"""How many parameters has a model of the Llama kind?

    Width d; in each layer four square matrices of attention (all heads with keys and
    values of their own), and a feed-forward network of three matrices with hidden width
    d_ff. The head is a matrix of its own. Llama 2 7B:

    >>> round(parameters(32_000, 4096, 32, 11_008) / 1e9, 2)
    6.74
    """
    raise NotImplementedError


def projections(d: int) -> float:
    r"""How many FLOPs do the projections of one layer take for one token?

    Queries, keys, values and output, each a square matrix of width d.
    """
    raise NotImplementedError


def forward(vocab_size: int, d: int, n_layers: int, d_ff: int, seq_len: int) -> float:
    r"""How many FLOPs does a model of the GPT-2 kind take to read a sequence, forward?

    The feed-forward network has *two* matrices, with hidden width d_ff. Count the
    scores of attention as a full square, seq_len × seq_len, and the logits of every
    position. GPT-2 small, in billions:

    >>> round(forward(50_257, 768, 12, 3_072, 1_024) / 1e9, 1)
    291.6
    """
    raise NotImplementedError


def training_step(forward: float, batch_size: int) -> float:
    r"""How many FLOPs does a step of training take, forward and backward?

    One sequence takes `forward` FLOPs forward, and a batch has batch_size of them.
    """
    raise NotImplementedError


def training_memory(n_params: int) -> float:
    r"""How many bytes do weights, gradients and AdamW take, before any activation?

    Every number is in float32.
    """
    raise NotImplementedError


def kv_cache(
    n_layers: int, n_heads: int, n_kv_heads: int, d: int, seq_len: int
) -> float:
    r"""How many bytes does the KV cache take for seq_len tokens?

    Width d; n_heads query heads, which share n_kv_heads heads of keys and values;
    16-bit numbers. Llama 3 8B, in gigabytes:

    >>> round(kv_cache(32, 32, 8, 4096, 8192) / 1e9, 2)
    1.07
    """
    raise NotImplementedError


def days(
    n_params: float, tokens: float, n_chips: int, peak: float, utilization: float
) -> float:
    r"""How many days does a training run take, by $6ND$?

    n_chips chips work side by side; each could do `peak` FLOP/s at best, and reaches a
    part of that, the utilization. Chinchilla, on 2048 chips at 40 %:

    >>> round(days(70e9, 1.4e12, 2048, 312e12, 0.4), 1)
    26.6
    """
    raise NotImplementedError


def dollars(days: float, n_chips: int, price: float) -> float:
    r"""What does a run of so many days cost, at `price` dollars for one chip and hour?

    >>> dollars(1.0, 10, 2.0)
    480.0
    """
    raise NotImplementedError
