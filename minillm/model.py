r"""The Transformer: from token ids to logits for every possible next token.

**The question.** [`minillm.bpe`][] has turned text into integers. An integer has no
meaning a machine could add or compare: id 300 is not "a little more" than id 299. How
does a model turn a sequence of ids into a guess about the next one, and how can the
guess about one position depend on *all* the positions before it?

**The plan.** Each id becomes a vector of $d$ numbers
([`Embedding`][minillm.model.Embedding]). The vectors then pass through $L$ equal
blocks. In each, [attention][minillm.attention] lets a position gather from the
positions before it, and a *feed-forward network* processes each position independently.
A last product turns each vector into $V$ numbers, the *logits*, one for each possible
next token. That is all:

>>> from minillm.config import ModelConfig
>>> config = ModelConfig(
...     vocab_size=100, context_length=16, d_model=32, n_layers=2, n_heads=4
... )
>>> model = TransformerLM(config)
>>> ids = torch.tensor([[7, 3, 9]])  # one sequence of three tokens
>>> logits = model(ids)
>>> logits.shape  # for each of the three, a logit for each of 100 possible next tokens
torch.Size([1, 3, 100])

**The one rule.** The logits at position $t$ may depend on the ids up to $t$ and on
nothing after it: otherwise the model would read the answer instead of guessing it.
Change the last id, and the logits before it stay the same to the bit:

>>> changed = model(torch.tensor([[7, 3, 42]]))
>>> torch.equal(logits[:, :2], changed[:, :2]), torch.equal(logits, changed)
(True, False)

# Where this differs from the first Transformer

(For those who know it; the words are explained where they are built.) Vaswani et al.
(2017, arXiv:1706.03762) described an encoder and a decoder, with LayerNorm after each
part, sinusoidal positions and ReLU. What is built here is the decoder alone, in the
form that Llama gave it (Touvron et al. 2023, arXiv:2302.13971): RMSNorm *before* each
part, rotary positions, SwiGLU, and no biases.

**Before this:** [`minillm.attention`][]. **Next:** [`minillm.gradients`][].
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from minillm.attention import (
    LayerCache,
    Linear,
    MultiHeadAttention,
    RotaryEmbedding,
    scaled_dot_product_attention,
    softmax,
)
from minillm.config import ModelConfig

__all__ = [
    "Embedding",
    "KVCache",
    "Linear",
    "MultiHeadAttention",
    "RMSNorm",
    "RotaryEmbedding",
    "SwiGLU",
    "TransformerBlock",
    "TransformerLM",
    "scaled_dot_product_attention",
    "silu",
    "softmax",
]


class Embedding(nn.Module):
    r"""A table with one learned vector of $d$ numbers for each token id.

    It is a matrix product in disguise: picking row $i$ is multiplying by a vector that
    is one at $i$ and zero elsewhere. Nobody computes it so, and
    [`minillm.flops`][] therefore counts the look-up as nothing.

    Args:
        vocab_size: $V$, the number of rows.
        d_model: $d$, the width of each.

    Examples:
        >>> table = Embedding(vocab_size=5, d_model=3)
        >>> one_hot = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0])
        >>> torch.equal(table(torch.tensor(2)), one_hot @ table.weight)
        True
    """

    def __init__(self, vocab_size: int, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, d_model))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the table anew."""
        self.weight.normal_()

    def forward(self, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch d_model"]:
        """Look up the vector of each id."""
        return F.embedding(ids, self.weight)

    def extra_repr(self) -> str:
        """The sizes, for `print(model)`."""
        return f"vocab_size={self.weight.shape[0]}, d_model={self.weight.shape[1]}"


class RMSNorm(nn.Module):
    r"""Rescale each vector to a root mean square of one, then by learned factors.

    $$\operatorname{RMSNorm}(x)_i =
    \frac{x_i}{\sqrt{\frac1d \sum_j x_j^2 + \epsilon}}\, g_i$$

    Without it the vectors grow from block to block; the example of
    [`TransformerBlock`][minillm.model.TransformerBlock] shows how far. (Zhang &
    Sennrich 2019, arXiv:1910.07467, equation 4; there without $\epsilon$, which stands
    *inside* the root.)

    Why not LayerNorm, which subtracts the mean first? The mean is one direction out of
    $d$, so for vectors without a preference it holds one part in $d$ of the square, and
    LayerNorm and RMSNorm differ by about one part in $\sqrt d$. In the experiments of
    that paper it made no difference to the result and cost time.

    Args:
        d_model: $d$, the width of the vectors.
        eps: $\epsilon$, which keeps a vector of zeros from dividing by zero.

    Examples:
        The direction stays, the length is set:

        >>> RMSNorm(2)(torch.tensor([3.0, 4.0])).allclose(
        ...     torch.tensor([3.0, 4.0]) / math.sqrt((3**2 + 4**2) / 2)
        ... )
        True
        >>> RMSNorm(2)(torch.zeros(2)).tolist()
        [0.0, 0.0]

        How far LayerNorm is from it, in a width of 1024: about one part in 32, which is
        the root of the width.

        >>> x = torch.randn(100, 1024, generator=torch.manual_seed(0))
        >>> ours, layer_norm = RMSNorm(1024)(x), F.layer_norm(x, (1024,))
        >>> round(1 / ((ours - layer_norm).norm() / ours.norm()).item())
        33
    """

    def __init__(self, d_model: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set all factors to one."""
        self.weight.fill_(1.0)

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Normalize each vector along the last axis."""
        # PyTorch's kernel computes the formula above in one pass over memory, and
        # under mixed precision does so in float32, where small squares survive.
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        """The size and the constant, for `print(model)`."""
        return f"d_model={len(self.weight)}, eps={self.eps}"


def silu(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    r"""The smooth gate $x \cdot \sigma(x)$, with $\sigma(x) = 1 / (1 + e^{-x})$.

    Large inputs pass, negative ones are all but blocked, and unlike ReLU it has a slope
    almost everywhere, so that a blocked unit can still learn (Elfwing et al. 2017,
    arXiv:1702.03118).

    Args:
        x: any real numbers.

    Returns:
        The gated numbers, in the shape of `x`.

    Examples:
        >>> [round(y, 2) for y in silu(torch.tensor([-10.0, -1.0, 0.0, 10.0])).tolist()]
        [-0.0, -0.27, 0.0, 10.0]
    """
    return x * torch.sigmoid(x)


class SwiGLU(nn.Module):
    r"""The feed-forward network: each position is processed independently.

    $$\operatorname{SwiGLU}(x) =
    W_2\, \bigl(\operatorname{silu}(W_1 x) \odot W_3 x\bigr)$$

    Attention alone is not enough. Once it is decided who looks where, it only takes
    means of vectors and multiplies them by matrices, and matrices one after the other
    are no more than one matrix. Nothing in it can say "if both, then". That takes a
    *nonlinearity* between two products, here `silu`.

    $W_1$ and $W_3$ both widen $d$ numbers to $d_{ff}$; the first, through `silu`, says
    how far each of the second is let through. Three matrices instead of the classical
    two, so $d_{ff}$ is $\frac83 d$ instead of $4d$, and the count of weights stays the
    same (Shazeer 2020, arXiv:2002.05202, equation 6).

    Args:
        d_model: $d$, the width of input and output.
        d_ff: $d_{ff}$, the hidden width.

    Examples:
        Two products equal one, unless something stands between them:

        >>> first, second, x = Linear(4, 9), Linear(9, 4), torch.eye(4)
        >>> one = second.weight @ first.weight
        >>> second(first(x)).allclose(x @ one.T, atol=1e-5)
        True
        >>> second(silu(first(x))).allclose(x @ one.T, atol=1e-5)
        False

        >>> ffn = SwiGLU(d_model=8, d_ff=24)
        >>> ffn(torch.ones(5, 8)).shape, sum(p.numel() for p in ffn.parameters())
        (torch.Size([5, 8]), 576)
    """

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.w1 = Linear(d_model, d_ff)
        self.w2 = Linear(d_ff, d_model)
        self.w3 = Linear(d_model, d_ff)

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Widen each vector, gate it, and bring it back to its width."""
        # `F.silu` is `silu` above in one kernel.
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class TransformerBlock(nn.Module):
    r"""One layer: gather from the past, then process; each *added* to what was there.

    $$x \leftarrow x + \operatorname{Attention}(\operatorname{RMSNorm}(x)) \qquad
    x \leftarrow x + \operatorname{SwiGLU}(\operatorname{RMSNorm}(x))$$

    Because each part adds to $x$, the *residual stream*, rather than replacing it, the
    gradient, from which weights learn ([`minillm.train`][]), reaches the first layer
    through the sums unhindered. The norms stand before each part (*pre-norm*), so what
    it adds is of a size that does not depend on how far the stream has grown. The first
    Transformer had them after the sum, and a stack of those trains only with care at
    the start (Xiong et al. 2020, arXiv:2002.04745).

    Args:
        config: the shape of the model.
        rope: the rotary embedding, one for all blocks.

    Examples:
        >>> config = ModelConfig(100, 16, d_model=32, n_layers=2, n_heads=4)
        >>> block = TransformerBlock(config, RotaryEmbedding(config.d_head, 16))
        >>> block(torch.zeros(1, 3, 32)).shape
        torch.Size([1, 3, 32])

        How large the stream is after 1, 4 and 8 of 16 blocks, with fresh weights and
        with weights three times as large, as they may become during training: with
        norms and sums, without the norms, and without either.

        >>> config = ModelConfig(9, 32, d_model=64, n_layers=16, n_heads=4)
        >>> def sizes(norm=True, add=True):
        ...     for scale in (1, 3):
        ...         _ = torch.manual_seed(0)
        ...         model = TransformerLM(config)
        ...         x, sizes = torch.randn(2, 32, 64), []
        ...         for w in model.blocks.parameters():
        ...             w.data *= scale if w.ndim == 2 else 1
        ...         for b in model.blocks:
        ...             for pre, part in ((b.attn_norm, b.attn), (b.ffn_norm, b.ffn)):
        ...                 y = part(pre(x) if norm else x)
        ...                 x = x + y if add else y
        ...             sizes.append(x.square().mean().sqrt().item())
        ...         print(*(f"{sizes[i]:.2g}" for i in (0, 3, 7)))
        >>> sizes()
        1 1 1.1
        3.6 7.1 10
        >>> sizes(norm=False)
        1 1 1.1
        10 inf nan
        >>> sizes(norm=False, add=False)
        0.00084 0 0
        7.3 1.7e+15 nan

        Without either, the stream vanishes in a fresh model and explodes in one with
        larger weights; with sums alone, a fresh model is sound and does not stay so.
        [The page on depth](training/depth.md) does the same with gradients.
    """

    def __init__(self, config: ModelConfig, rope: RotaryEmbedding) -> None:
        super().__init__()
        d, eps = config.d_model, config.norm_eps
        self.attn_norm = RMSNorm(d, eps)
        self.attn = MultiHeadAttention(d, config.n_heads, config.n_kv_heads, rope)
        self.ffn_norm = RMSNorm(d, eps)
        self.ffn = SwiGLU(d, config.d_ff)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        positions: Int[Tensor, "*pos seq"] | None = None,
        cache: LayerCache | None = None,
    ) -> Float[Tensor, "batch seq d_model"]:
        """Add to `x` what the two parts of the block have to say about it."""
        x = x + self.attn(self.attn_norm(x), positions, cache)
        return x + self.ffn(self.ffn_norm(x))


class KVCache:
    r"""The keys and values of the tokens read so far, so that none is computed twice.

    Generating token by token, the model would otherwise read the whole text again for
    each new token. Keys and values of the past do not change (the one rule), so
    they are kept: per layer, sequence and key/value head, $2\,d_h$ numbers a token.

    Args:
        config: the shape of the model that the cache serves.
        batch_size: $B$, how many sequences it reads side by side.

    Attributes:
        layers: one [`LayerCache`][minillm.attention.LayerCache] for each block.
        model: the model that has filled it; `None` before.

    Examples:
        Reading three tokens at once, or one and then two, gives the same logits:

        >>> config = ModelConfig(100, 16, d_model=32, n_layers=2, n_heads=4)
        >>> model, ids = TransformerLM(config).double(), torch.tensor([[7, 3, 9]])
        >>> cache = KVCache(config, batch_size=1)
        >>> first, rest = model(ids[:, :1], cache), model(ids[:, 1:], cache)
        >>> torch.cat([first, rest], dim=1).allclose(model(ids)), cache.length
        (True, 3)
    """

    def __init__(self, config: ModelConfig, batch_size: int) -> None:
        shape = batch_size, config.n_kv_heads, config.context_length, config.d_head
        self.layers = [LayerCache(shape) for _ in range(config.n_layers)]
        self.model: nn.Module | None = None

    @property
    def length(self) -> int:
        """How many tokens have been read."""
        return self.layers[0].length

    def keep_for(self, model: nn.Module) -> None:
        """Note which model fills the cache, since no other understands what it holds.

        Args:
            model: the model that is about to read.

        Raises:
            ValueError: if another one has read the tokens that are kept.

        Examples:
            >>> config = ModelConfig(100, 16, d_model=32, n_layers=2, n_heads=4)
            >>> cache, ids = KVCache(config, batch_size=1), torch.tensor([[7, 3, 9]])
            >>> _ = TransformerLM(config)(ids, cache)
            >>> TransformerLM(config)(ids, cache)  # doctest: +ELLIPSIS
            Traceback (most recent call last):
            ValueError: another model has read these 3 tokens: ...
        """
        if self.length and self.model is not None and self.model is not model:
            raise ValueError(
                f"another model has read these {self.length} tokens: start a new "
                "KVCache, or a new Memory"
            )
        self.model = model

    def cut(self, length: int) -> None:
        """Forget the last tokens, so that others can follow in their stead.

        Args:
            length: how many tokens stay.

        Raises:
            ValueError: if it holds fewer.

        Examples:
            >>> config = ModelConfig(100, 16, d_model=32, n_layers=2, n_heads=4)
            >>> model, ids = TransformerLM(config).double(), torch.tensor([[7, 3, 9]])
            >>> cache = KVCache(config, batch_size=1)
            >>> _ = model(torch.tensor([[7, 3, 8, 8]]), cache)
            >>> cache.cut(2)
            >>> model(ids[:, 2:], cache)[0, -1].allclose(model(ids)[0, -1])
            True
        """
        if not 0 <= length <= self.length:
            raise ValueError(
                f"the cache holds {self.length} tokens; {length} cannot be kept of them"
            )
        # What lies behind the length is never read, and overwritten by what follows.
        for layer in self.layers:
            layer.length = length


class TransformerLM(nn.Module):
    r"""The whole model: ids in, logits out.

    Args:
        config: its shape.

    Attributes:
        config: the same, kept.

    Raises:
        ValueError: from the call, if a sequence is longer than `context_length`, or
            another model has filled the cache.

    Examples:
        Before training, no token should be more likely than another. The mean of
        $-\ln p$ over the tokens that come, the *loss*, is then $\ln V$, and a fresh
        model is close to it:

        >>> _ = torch.manual_seed(0)
        >>> config = ModelConfig(1000, 64, d_model=64, n_layers=4, n_heads=4)
        >>> model = TransformerLM(config)
        >>> ids = torch.randint(1000, (8, 65))
        >>> probabilities = softmax(model(ids[:, :-1]), dim=-1)
        >>> loss = -probabilities.gather(-1, ids[:, 1:, None]).log().mean()
        >>> round(loss.item(), 1), round(math.log(1000), 1)
        (6.9, 6.9)

        That is because `reset_parameters` starts the head small. With entries of
        variance 1 it would be sure of itself, and wrong:

        >>> _ = nn.init.normal_(model.lm_head.weight)
        >>> probabilities = softmax(model(ids[:, :-1]), dim=-1)
        >>> loss = -probabilities.gather(-1, ids[:, 1:, None]).log().mean()
        >>> loss.item() > 20
        True

        How many weights? Embedding and head have $Vd$ each. A block has $d^2$ in each
        of $W_q$ and $W_o$, $d\,H_{kv} d_h$ in each of $W_k$ and $W_v$, $d\,d_{ff}$ in
        each of $W_1$, $W_2$ and $W_3$, and two norms; one norm stands at the end. By
        this formula, by counting, and by [`minillm.flops.param_count`][]:

        >>> V, d, L, d_ff = 1000, 64, 4, config.d_ff
        >>> d_kv = config.n_kv_heads * config.d_head
        >>> 2 * V * d + L * (2 * d * d + 2 * d * d_kv + 3 * d * d_ff + 2 * d) + d
        341568
        >>> sum(p.numel() for p in model.parameters())
        341568
        >>> from minillm.flops import param_count
        >>> param_count(config).total
        341568
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        rope = RotaryEmbedding(
            config.d_head, config.context_length, config.rope_theta, config.rope_scaling
        )
        self.token_embedding = Embedding(config.vocab_size, config.d_model)
        self.blocks = nn.ModuleList(
            TransformerBlock(config, rope) for _ in range(config.n_layers)
        )
        self.final_norm = RMSNorm(config.d_model, config.norm_eps)
        self.lm_head = Linear(config.d_model, config.vocab_size)
        self._start_small()

    def reset_parameters(self) -> None:
        r"""Draw all weights anew, as the constructor does.

        Each layer first starts as its shape wants it. Then the position of a layer in
        the model counts:

        - The head starts small, so that all logits start near zero and the first loss
          near $\ln V$.
        - $2L$ parts are added to the residual stream. Each starts $\sqrt{2L}$ times
          smaller, so that their sum starts at the size of one (Radford et al. 2019,
          the GPT-2 report, section 2.3).
        """
        for part in self.modules():
            if isinstance(part, Embedding | Linear | RMSNorm):
                part.reset_parameters()
        self._start_small()

    @torch.no_grad()
    def _start_small(self) -> None:
        """Set the weights that depend on the position of a layer in the model."""
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        if self.config.tie_embeddings:
            self.lm_head.weight = self.token_embedding.weight
        else:
            nn.init.normal_(self.lm_head.weight, std=0.02)
        for part in self.modules():
            if isinstance(part, TransformerBlock):
                part.attn.o_proj.weight.div_(math.sqrt(2 * self.config.n_layers))
                part.ffn.w2.weight.div_(math.sqrt(2 * self.config.n_layers))

    def forward(
        self, ids: Int[Tensor, "batch seq"], cache: KVCache | None = None
    ) -> Float[Tensor, "batch seq vocab"]:
        """Compute, for each id, the logits of every possible next token."""
        if cache is not None:
            cache.keep_for(self)
        start = cache.length if cache is not None else 0
        if start + ids.shape[1] > self.config.context_length:
            raise ValueError(
                f"the model reads at most {self.config.context_length} tokens; got "
                f"{start} cached and {ids.shape[1]} new: pass only the last of them"
            )
        layers: Sequence[LayerCache | None]
        layers = cache.layers if cache is not None else [None] * len(self.blocks)
        x = self.token_embedding(ids)  # (B, T, d)
        for block, layer in zip(self.blocks, layers, strict=True):
            x = block(x, None, layer)
        return self.lm_head(self.final_norm(x))  # (B, T, V)
