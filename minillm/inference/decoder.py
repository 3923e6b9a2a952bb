r"""Decoding, fast: one token at a time, with nothing in the way.

**The question.** A step of decoding uses each weight once, on one row of numbers. For
the model of the demo that is a million multiplications, and a processor does a billion
in a blink. Yet [`TransformerLM`][minillm.model.TransformerLM] takes a thousandth of a
second for it. Where does the time go?

**Call overhead.** The model is written for reading, and for many rows at once. Each
matrix is a product of its own, each part a module that Python has to enter and leave,
and PyTorch is called for every small step in between. With a thousand rows the calls do
not matter; with one row they cost more than the work. How often is PyTorch called for
one token?

>>> from minillm.config import ModelConfig
>>> config = ModelConfig(2048, 128, d_model=128, n_layers=2, n_heads=4)
>>> model, cache = TransformerLM(config), KVCache(config, batch_size=1)
>>> from torch.overrides import TorchFunctionMode
>>> class Counted(TorchFunctionMode):
...     n = 0
...     def __torch_function__(self, function, types, args=(), kwargs=None):
...         self.n += 1
...         return function(*args, **(kwargs or {}))
>>> with torch.inference_mode(), Counted() as whole_model:
...     _ = model(torch.tensor([[1]]), cache)
>>> decoder = Decoder(model)
>>> with Counted() as one_loop:
...     _ = decoder(2, cache)
>>> whole_model.n > 100, one_loop.n < 0.7 * whole_model.n
(True, True)

Three things are done about it, all of them with the same weights and the same formulas:

- *Fewer products.* $W_q$, $W_k$ and $W_v$ are applied to the same row, and so are $W_1$
  and $W_3$. Written below each other, they are one matrix.
- *In the order in which they are read.* A row times a matrix goes through the memory
  once and does nothing else, so the order of the numbers there matters: those that meet
  the same input lie side by side.
- *No modules.* What they would do stands in a single loop.

A small model gains most by this. A large one waits for its weights to come from memory,
and as long as it reads them for one token at a time, only fewer weights or weights of
fewer bits can help: at $n$ weights of 4 bytes and a memory that gives $b$ bytes a
second, no program writes more than $b / (4n)$ tokens a second. Beside
`transformers.generate`, a model of width 512 with 8 layers still writes 1.6 times as
fast ([measured](../speed.md#writing)).

**Before this:** [`minillm.generate`][], which does all this by itself where it can.
"""

from collections.abc import Sequence
from itertools import takewhile

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from minillm.attention import Linear, MultiHeadAttention, RotaryEmbedding
from minillm.config import ModelConfig
from minillm.inference.eight_bit_layers import (
    EightBitEmbedding,
    EightBitLinear,
    Product,
)
from minillm.model import (
    Embedding,
    KVCache,
    RMSNorm,
    SwiGLU,
    TransformerBlock,
    TransformerLM,
)

__all__ = ["Decoder", "Memory", "read_prompt", "suits"]

# If one of these parts was changed, or has a hook, the model itself has to run.
KNOWN = {
    EightBitEmbedding,
    EightBitLinear,
    Embedding,
    Linear,
    MultiHeadAttention,
    RMSNorm,
    RotaryEmbedding,
    SwiGLU,
    TransformerBlock,
    TransformerLM,
    nn.ModuleList,
}
# The matrices are copied, which must not fill the memory.
MOST_BYTES = 2**30


def suits(model: nn.Module) -> bool:
    """Say whether the decoder can stand in for a model.

    Args:
        model: the model.

    Returns:
        Whether it is ours in all its parts, no hook listens to one, and its copy would
        take at most 1 GiB.

    Examples:
        >>> from minillm.config import ModelConfig
        >>> model = TransformerLM(ModelConfig(50, 8, d_model=16, n_layers=1, n_heads=2))
        >>> suits(model)
        True
        >>> model.blocks[0].ffn = nn.Identity()
        >>> suits(model)
        False
    """
    for part in model.modules():
        if type(part) not in KNOWN or part._forward_hooks or part._forward_pre_hooks:
            return False
    n_bytes = sum(w.numel() * w.element_size() for w in model.parameters())
    return n_bytes <= MOST_BYTES


class Decoder:
    r"""Same result as the model, for one new token and the cache of those before it.

    Unlike it: the matrices are copied, joined, and laid out for a single row. Copying
    takes as long as some ten tokens, so keep the decoder for the next text. A model
    that learns after that is not followed.

    Args:
        model: the model.

    Raises:
        ValueError: from the call, if another model has filled the cache.

    Examples:
        >>> from minillm.config import ModelConfig
        >>> config = ModelConfig(50, 8, d_model=16, n_layers=2, n_heads=2)
        >>> model, ids = TransformerLM(config).double(), torch.tensor([[7, 3, 9]])
        >>> cache, decoder = KVCache(config, batch_size=1), Decoder(model)
        >>> prompt = model(ids[:, :2], cache)
        >>> decoder(9, cache).allclose(model(ids)[0, -1]), cache.length
        (True, 3)
    """

    @torch.no_grad()
    def __init__(self, model: TransformerLM) -> None:
        self.model, self.config = model, model.config
        self.layers = [
            (
                b.attn_norm.weight.detach(),
                _joined(b.attn.q_proj, b.attn.k_proj, b.attn.v_proj),
                b.attn.rope,
                _joined(b.attn.o_proj),
                b.ffn_norm.weight.detach(),
                _joined(b.ffn.w1, b.ffn.w3),
                _joined(b.ffn.w2),
            )
            for b in model.blocks
            if isinstance(b, TransformerBlock)
        ]
        self.final_norm = model.final_norm.weight.detach()
        self.head = _joined(model.lm_head)

    def check(self, model: nn.Module) -> None:
        """Refuse to stand in for another model.

        Args:
            model: the model that is asked.

        Raises:
            ValueError: if it is not the one that this was made of.

        Examples:
            >>> from minillm.config import ModelConfig
            >>> config = ModelConfig(50, 8, d_model=16, n_layers=1, n_heads=2)
            >>> Decoder(TransformerLM(config)).check(TransformerLM(config))
            Traceback (most recent call last):
            ValueError: the decoder is of another model: make one with Decoder(model)
        """
        if self.model is not model:
            raise ValueError(
                "the decoder is of another model: make one with Decoder(model)"
            )

    def __call__(self, token: int, cache: KVCache) -> Float[Tensor, " vocab"]:
        """Read one token, and return the logits of the next."""
        return self.read([token], cache)[0]

    @torch.inference_mode()
    def read(
        self, ids: Sequence[int], cache: KVCache, last: int = 1
    ) -> Float[Tensor, "last vocab"]:
        """Read some tokens, and return the logits after the last of them.

        Args:
            ids: what follows on the cache.
            cache: extended by them.
            last: how many positions, at the end.

        Returns:
            The logits.
        """
        cache.keep_for(self.model)
        c, start, end = self.config, cache.length, cache.length + len(ids)
        n = c.n_heads + c.n_kv_heads  # heads that are turned: queries and keys
        table = self.model.token_embedding
        x = table(torch.tensor(ids, device=table.weight.device))  # (T, d)
        # A single query sees all keys, so there is nothing to mask.
        mask = None
        if start and len(ids) > 1:
            mask = torch.ones(len(ids), end, dtype=torch.bool, device=x.device)
            mask = mask.tril(start)
        for layer, kept in zip(self.layers, cache.layers, strict=True):
            g_attn, w_qkv, rope, w_o, g_ffn, w_13, w_2 = layer
            heads = w_qkv(self._norm(x, g_attn))
            heads = heads.view(1, len(ids), n + c.n_kv_heads, c.d_head).transpose(1, 2)
            turned = heads[:, :n] if rope is None else rope(heads[:, :n], None, start)
            k, v = kept.append(turned[:, c.n_heads :], heads[:, n:])
            gathered = F.scaled_dot_product_attention(
                turned[:, : c.n_heads],
                k,
                v,
                attn_mask=mask,
                is_causal=not start,
                enable_gqa=c.n_kv_heads != c.n_heads,
            )
            x = w_o.added_to(x, gathered.transpose(1, 2).reshape(len(ids), c.d_model))
            gate, up = w_13(self._norm(x, g_ffn)).chunk(2, dim=-1)
            x = w_2.added_to(x, F.silu(gate) * up)
        return self.head(self._norm(x[-last:], self.final_norm))

    def _norm(
        self, x: Float[Tensor, "rows d"], gain: Float[Tensor, " d"]
    ) -> Float[Tensor, "rows d"]:
        return F.rms_norm(x, gain.shape, gain, self.config.norm_eps)


class _Rows:
    """Matrices that read the same row, as one; what one input meets lies together."""

    def __init__(self, layers: Sequence[Linear]) -> None:
        self.w = torch.cat([layer.weight.detach() for layer in layers]).T.contiguous()

    def __call__(self, x: Float[Tensor, "rows d_in"]) -> Float[Tensor, "rows d_out"]:
        return x @ self.w

    def added_to(
        self, y: Float[Tensor, "rows d_out"], x: Float[Tensor, "rows d_in"]
    ) -> Float[Tensor, "rows d_out"]:
        return torch.addmm(y, x, self.w)


def _joined(*layers: Linear | EightBitLinear) -> _Rows | Product:
    first = layers[0]
    if isinstance(first, EightBitLinear):
        return first.product  # they share it
    return _Rows([layer for layer in layers if isinstance(layer, Linear)])


@torch.inference_mode()
def read_prompt(
    model: TransformerLM, ids: Sequence[int], cache: KVCache | None, last: int = 1
) -> Float[Tensor, "last vocab"]:
    r"""Read a prompt, and return the logits after its last tokens alone.

    Same result as the end of `model(ids, cache)`. Unlike it: the head, which has
    [a third of the FLOPs](../flops.md) of the demo's model, meets only the positions
    that are asked for.

    Args:
        model: a model that [`suits`][minillm.inference.decoder.suits].
        ids: what follows on the cache.
        cache: extended by them; `None` for none.
        last: how many positions, at the end.

    Returns:
        The logits.

    Examples:
        >>> from minillm.config import ModelConfig
        >>> model = TransformerLM(ModelConfig(50, 8, d_model=16, n_layers=1, n_heads=2))
        >>> read_prompt(model, [7, 3, 9], None, last=2).allclose(
        ...     model(torch.tensor([[7, 3, 9]]))[0, 1:], atol=1e-6
        ... )
        True
    """
    if cache is not None:
        cache.keep_for(model)
    layers = cache.layers if cache is not None else [None] * len(model.blocks)
    device = model.token_embedding.weight.device
    x = model.token_embedding(torch.tensor([ids], device=device))  # (1, T, d)
    for block, layer in zip(model.blocks, layers, strict=True):
        x = block(x, None, layer)
    logits: Tensor = model.lm_head(model.final_norm(x[:, -last:]))
    return logits[0]


class Memory:
    r"""What a model has read, kept for a text that begins in the same way.

    The second question of a chat comes behind the first one and its answer, which the
    model has read and written already. Their keys and values need not be computed
    again: a text is read from where it differs.

    Attributes:
        ids: what the cache holds.
        cache: keys and values of these ids; `None` before the first text. It refuses
            a model other than the one that filled it.

    Examples:
        >>> from minillm.config import ModelConfig
        >>> model = TransformerLM(ModelConfig(50, 8, d_model=16, n_layers=1, n_heads=2))
        >>> memory = Memory()
        >>> cache = memory.resume([1, 2, 3], model.config)
        >>> _ = read_prompt(model, [1, 2, 3], cache)
        >>> memory.ids = [1, 2, 3]
        >>> memory.resume([1, 2, 9, 9], model.config).length
        2
    """

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.cache: KVCache | None = None

    def resume(self, ids: Sequence[int], config: ModelConfig) -> KVCache:
        """Go back to where a text differs from what was read.

        Args:
            ids: the text.
            config: the shape of the model, always the same.

        Returns:
            The cache, which holds the beginning of the text. At least one id is left to
            be read, since only reading gives logits.
        """
        pairs = zip(self.ids, ids[:-1], strict=False)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        if self.cache is None or same == 0:
            self.cache = KVCache(config, batch_size=1)
        else:
            self.cache.cut(same)
        self.ids = list(ids[:same])
        return self.cache
