r"""Sampling many sequences at once.

**The question.** Reinforcement learning needs samples by the hundred thousand: eight
answers to each question, for tens of thousands of questions.
[`generate`][minillm.generate.generate] writes one sequence. Called in a loop, it reads
every weight of the model once for each token of each sequence. How do we read the
weights once for *all* sequences?

**Side by side.** A step of decoding multiplies one vector by each matrix. For $B$
sequences it multiplies $B$ vectors by the same matrix, and a processor that waits for
its memory does both in nearly the same time. `python -m benchmarks.sampling` measures
the ratio ([results](../speed.md)). Three things have to be
taken care of:

- *Prompts that occur several times.* A prompt is read once, and its keys and values are
  copied for each of its `n` samples.
- *Prompts of different lengths.* All sequences advance together from the end of the
  shortest prompt. Where a longer prompt goes on, its next token is taken from it, and
  what was sampled there is thrown away. (So does Llama's own `generation.py`; no
  position is padded in front, and the model needs no further mask.)
- *Sequences that are finished.* They are carried along until the last one stops, and
  what they say is neither kept nor counted: `mask` is True on the tokens that were
  sampled, including the one that ended the text, and False on prompt and padding.

>>> from minillm.config import ModelConfig
>>> _ = torch.manual_seed(0)
>>> model = TransformerLM(ModelConfig(5, 8, d_model=16, n_layers=1, n_heads=2))
>>> random = torch.Generator().manual_seed(1)
>>> out = sample_batch(model, [[1], [1, 2, 3]], 4, n=2, stop_ids=[0], random=random)
>>> out.ids.shape  # two prompts, two samples each; 3 + 4 positions at most
torch.Size([4, 7])
>>> out.ids[2:, :3].tolist()  # every sequence begins with its prompt
[[1, 2, 3], [1, 2, 3]]
>>> all(len(ids) == 4 or ids[-1] == 0 for ids in out.new_ids())
True

**The log-probabilities** of the sampled tokens cost nothing here, and
[`policy_loss`][minillm.training.policy.policy_loss] needs them. They are those of the
distribution that was sampled from, temperature included.

**Before this:** [`minillm.generate`][]. **Used by** the lab of
[`minillm.posttraining`][].
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from minillm.inference.checks import (
    check_ids,
    check_logits,
    check_prompt,
    check_temperature,
)
from minillm.model import KVCache, TransformerLM

__all__ = ["Samples", "sample_batch"]


class Samples(NamedTuple):
    """Sequences that were sampled side by side.

    Attributes:
        ids: each prompt and its continuation, padded at the end.
        mask: True on the tokens that were sampled, the one that ended the text
            included.
        log_probs: the log-probability with which each of them was sampled; 0 elsewhere.
    """

    ids: Int[Tensor, "batch seq"]
    mask: Bool[Tensor, "batch seq"]
    log_probs: Float[Tensor, "batch seq"]

    def new_ids(self) -> list[list[int]]:
        """List the sampled tokens of each sequence, without prompt and padding."""
        # One transfer to lists; indexing row by row would cost more than sampling.
        rows = zip(self.ids.tolist(), self.mask.tolist(), strict=True)
        return [[i for i, new in zip(*row, strict=True) if new] for row in rows]


@torch.no_grad()
def sample_batch(
    model: TransformerLM,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    *,
    n: int = 1,
    temperature: float = 1.0,
    stop_ids: Collection[int] = (),
    random: torch.Generator | None = None,
) -> Samples:
    r"""Continue many prompts side by side.

    The same distribution as [`generate`][minillm.generate.generate]. Unlike it: the
    random numbers are used in another order, a sequence ends *with* its stop id, and
    nothing may outgrow the context.

    Args:
        model: the model.
        prompts: at least one, each of at least one id. Their lengths may differ.
        max_new_tokens: how many tokens are sampled for each at most, at least 1.
        n: how many samples of each prompt, at least 1; they are neighbours in the
            result.
        temperature: see
            [`apply_temperature`][minillm.generate.apply_temperature]; 0 is greedy, and
            each token then has probability one.
        stop_ids: ids that end a sequence.
        random: the random number generator; `None` for PyTorch's own.

    Returns:
        The samples, `n` for each prompt.

    Raises:
        ValueError: if a prompt is empty, an id unknown, a number out of its range, or
            the longest prompt and its continuation do not fit into the context; or if
            the model's logits are not numbers.

    Examples:
        Greedy, it writes what `generate` writes:

        >>> from minillm.config import ModelConfig
        >>> from minillm.generate import generate
        >>> _ = torch.manual_seed(0)
        >>> model = TransformerLM(ModelConfig(50, 16, 16, n_layers=1, n_heads=2))
        >>> prompts = [[1, 2], [7], [3, 4, 5]]
        >>> together = sample_batch(model, prompts, 6, temperature=0).new_ids()
        >>> together == [generate(model, p, 6, temperature=0) for p in prompts]
        True
        >>> sample_batch(model, [[1, 2]], 15)
        Traceback (most recent call last):
        ValueError: 2 + 15 tokens do not fit into a context of 16: ask for fewer
    """
    _check(model, prompts, max_new_tokens, n, temperature, stop_ids)
    prompts = [check_prompt(prompt, model.config) for prompt in prompts]
    device = model.token_embedding.weight.device
    shortest, longest = min(map(len, prompts)), max(map(len, prompts))
    width, pad = longest + max_new_tokens, min(stop_ids, default=0)
    padded = [[*p, *[pad] * (width - len(p))] for p in prompts]
    unique = torch.tensor(padded, device=device)  # (prompts, width)
    once = KVCache(model.config, len(prompts))
    logits = model(unique[:, :shortest], once)[:, -1].repeat_interleave(n, 0)
    cache = _repeat(once, model, len(prompts), n)

    ids = unique.repeat_interleave(n, 0)  # (B, width)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    log_probs = torch.zeros(ids.shape, dtype=logits.dtype, device=device)
    start = torch.tensor([len(p) for p in prompts], device=device)
    start = start.repeat_interleave(n)  # where the first new token of each stands
    stops = torch.tensor(list(stop_ids), dtype=torch.long, device=device)
    done = torch.zeros_like(start, dtype=torch.bool)
    for t in range(shortest, width):
        tokens, log_p = _choose(logits, temperature, random)
        active = (t >= start) & (t < start + max_new_tokens) & ~done
        ids[:, t] = torch.where(active, tokens, ids[:, t])
        mask[:, t], log_probs[:, t] = active, torch.where(active, log_p, 0.0)
        done |= active & torch.isin(tokens, stops)
        if t + 1 == width or (done | (t + 1 >= start + max_new_tokens)).all():
            break
        logits = model(ids[:, t : t + 1], cache)[:, -1]
    return Samples(ids[:, : t + 1], mask[:, : t + 1], log_probs[:, : t + 1])


def _choose(
    logits: Float[Tensor, "batch vocab"],
    temperature: float,
    random: torch.Generator | None,
) -> tuple[Int[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Sample one token for each row, and its log-probability."""
    check_logits(logits)
    if temperature == 0:
        return logits.argmax(-1), logits.new_zeros(len(logits))
    # A tiny temperature makes scores that no float32 holds, unless the best is 0.
    scores = (logits - logits.amax(-1, keepdim=True)).double() / temperature
    log_p = scores.log_softmax(-1).to(logits.dtype)
    tokens = torch.multinomial(log_p.exp(), 1, generator=random)
    return tokens[:, 0], log_p.gather(1, tokens)[:, 0]


def _repeat(once: KVCache, model: TransformerLM, n_prompts: int, n: int) -> KVCache:
    """Copy what was read of each prompt for its `n` samples."""
    if n == 1:
        return once
    cache = KVCache(model.config, n_prompts * n)
    for old, new in zip(once.layers, cache.layers, strict=True):
        k, v = (x[:, :, : old.length].repeat_interleave(n, 0) for x in (old.k, old.v))
        new.append(k, v)
    return cache


def _check(
    model: TransformerLM,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    n: int,
    temperature: float,
    stop_ids: Collection[int],
) -> None:
    if len(prompts) == 0:
        raise ValueError("there is no prompt: give at least one")
    for name, value in (("max_new_tokens", max_new_tokens), ("n", n)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1; got {value}")
    check_temperature(temperature)
    check_ids(stop_ids, model.config.vocab_size)
    longest, context_length = max(map(len, prompts)), model.config.context_length
    if longest + max_new_tokens > context_length:
        raise ValueError(
            f"{longest} + {max_new_tokens} tokens do not fit into a context of "
            f"{context_length}: ask for fewer"
        )
