r"""Exercises to chapter 7: accounting.

Each function takes nothing and returns one number. Write the arithmetic, not only the
result: `return 2 * 768 * ...`. Then ask

    minillm exercises check flops.forward    # one of them
    minillm exercises check flops            # those of this file

A FLOP is one addition or one multiplication. Only matrix products are counted. A result
counts as right within 0.1 %, so norms and biases may be left out.
"""


def parameters() -> float:
    r"""How many parameters has Llama 2 7B?

    Vocabulary 32,000; width 4096; 32 layers; in each, four square matrices of attention
    (32 heads, all with keys and values of their own) and a feed-forward network of
    three matrices with hidden width 11,008. The head is a matrix of its own.
    """
    raise NotImplementedError


def projections() -> float:
    r"""How many FLOPs do the projections of one layer take for one token?

    Queries, keys, values and output, each a square matrix of width 4096.
    """
    raise NotImplementedError


def forward() -> float:
    r"""How many FLOPs does GPT-2 small take to read 1024 tokens, forward?

    Vocabulary 50,257; width 768; 12 layers of 12 heads; the feed-forward network has
    *two* matrices, with hidden width 3072. Count the scores of attention as a full
    square, 1024 × 1024, and the logits of every position.
    """
    raise NotImplementedError


def training_step() -> float:
    r"""How many FLOPs does a step of training take, forward and backward?

    For the model of the exercise before, and a batch of 512 sequences of 1024 tokens.
    """
    raise NotImplementedError


def training_memory() -> float:
    r"""How many bytes do weights, gradients and AdamW take, before any activation?

    GPT-2 XL has 1,557,611,200 parameters, and every number is in float32.
    """
    raise NotImplementedError


def kv_cache() -> float:
    r"""How many bytes does the KV cache of Llama 3 8B take for 8192 tokens?

    32 layers; width 4096; 32 query heads that share 8 heads of keys and values; 16-bit
    numbers.
    """
    raise NotImplementedError


def days() -> float:
    r"""How many days does it take to train Chinchilla?

    70 billion parameters on 1.4 trillion tokens, by $6ND$; on 2048 chips whose peak is
    312 TFLOP/s, of which 40 % are reached.
    """
    raise NotImplementedError


def dollars() -> float:
    r"""What does the training of the exercise before cost?

    At 2 dollars for one chip and hour.
    """
    raise NotImplementedError
