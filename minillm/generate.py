r"""Sampling: from the logits of every next token back to text.

**The question.** The model gives $V$ numbers, the logits. Text needs *one* token.
Which?

**Before this:** [`minillm.model`][] computes the logits, [`minillm.train`][] has made
them good. **Next:** [`minillm.flops`][] counts what it all costs.

# Greedy, and what is wrong with it

Take the largest. Below, a hand-made "model" knows four words and gives them the
probabilities 50, 30, 15 and 5 percent:

>>> logits = torch.tensor([0.50, 0.30, 0.15, 0.05]).log()
>>> logits.argmax().item()
0

*Greedy* decoding picks word 0 every time this context recurs, and the text runs in
circles. The model of six lines of the [first page](language-model.md), which counts
what follows each word, shows it:

>>> from collections import Counter
>>> from itertools import pairwise
>>> pairs = [*pairwise("the cat saw the dog and the cat saw the bird".split())]
>>> text = ["the"]
>>> while len(text) < 10:
...     follows = Counter(after for word, after in pairs if word == text[-1])
...     text += [follows.most_common(1)[0][0]]
>>> " ".join(text)
'the cat saw the cat saw the cat saw the'

Large models do it, too (Holtzman et al. 2020, arXiv:1904.09751). *Sampling* from the
probabilities avoids that, and brings the opposite trouble. Each unlikely word is rarely
sampled, but there are thousands of them, and one is enough to derail a sentence.
With one bad sample in twenty, a text of 50 words survives in 8 cases of 100:

>>> round(0.95**50, 2)
0.08

The first three functions below reshape the distribution between these two ends. Each
takes logits and returns logits, so they can be chained; a word that is ruled out gets
$-\infty$. [`pick`][minillm.generate.pick] applies them and samples,
[`generate_naive`][minillm.generate.generate_naive] is the loop around it, and
[`stream`][minillm.generate.stream] the same loop without doing any work twice.
"""

import codecs
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice, takewhile
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from minillm.attention import softmax
from minillm.bpe import BPETokenizer
from minillm.inference.checks import (
    check_ids,
    check_logits,
    check_prompt,
    check_temperature,
)
from minillm.inference.decoder import Decoder, Memory, read_prompt, suits
from minillm.model import TransformerLM

__all__ = [
    "apply_temperature",
    "generate",
    "generate_naive",
    "pick",
    "stream",
    "stream_text",
    "top_k_filter",
    "top_p_filter",
]

ROUNDING = 1e-9  # what a total of probabilities may miss p by, relative to p


def apply_temperature(
    logits: Float[Tensor, "*batch vocab"], t: float
) -> Float[Tensor, "*batch vocab"]:
    r"""Sharpen ($t < 1$) or flatten ($t > 1$) a distribution: $x \mapsto x / t$.

    Probabilities are raised to the power $1/t$ and normalized again, so their order
    never changes.

    Args:
        logits: the logits.
        t: the temperature, positive. Greedy choice is the limit $t \to 0$, which
            [`generate`][minillm.generate.generate] takes as a special case.

    Returns:
        The logits, divided.

    Raises:
        ValueError: if the temperature is not positive and finite.

    Examples:
        At half the temperature the odds are squared: 50 to 30 becomes 25 to 9.

        >>> logits = torch.tensor([0.50, 0.30, 0.15, 0.05]).log()
        >>> for t in (0.5, 1.0, 2.0):
        ...     p = softmax(apply_temperature(logits, t), dim=0)
        ...     bits = -(p * p.log2()).sum().item()  # the entropy
        ...     print([round(x, 2) for x in p.tolist()], round(bits, 2))
        [0.68, 0.25, 0.06, 0.01] 1.17
        [0.5, 0.3, 0.15, 0.05] 1.65
        [0.38, 0.29, 0.21, 0.12] 1.89
    """
    check_temperature(t, greedy=False)
    return logits / t


def top_k_filter(
    logits: Float[Tensor, "*batch vocab"], k: int
) -> Float[Tensor, "*batch vocab"]:
    r"""Keep the $k$ largest logits and rule out the rest.

    Args:
        logits: the logits.
        k: how many stay, at least 1. With equal logits the smaller id stays.

    Returns:
        The logits, with $-\infty$ where a token is ruled out.

    Raises:
        ValueError: if `k` is less than 1.

    Examples:
        >>> top_k_filter(torch.tensor([1.0, 3.0, 2.0, 3.0]), k=2).tolist()
        [-inf, 3.0, -inf, 3.0]

        One number for every situation is a crude rule. In the model of the demo, eight
        tokens have half of the probability after "The little mermaid" and a sixth after
        "He looked at the" ([try it](sample.md)).
    """
    if k < 1:
        raise ValueError(f"top_k must be at least 1; got {k}")
    order = logits.argsort(dim=-1, descending=True, stable=True)
    return logits.scatter(-1, order[..., k:], -math.inf)


def top_p_filter(
    logits: Float[Tensor, "*batch vocab"], p: float
) -> Float[Tensor, "*batch vocab"]:
    r"""Keep the fewest tokens that together have a probability of at least $p$.

    The number that stays now follows the model: few where it is sure, many where it is
    not. (Holtzman et al. 2020, "nucleus sampling", arXiv:1904.09751, section 3.1.)

    Args:
        logits: the logits.
        p: the share to keep, in $(0, 1]$. The token that crosses $p$ stays; with equal
            logits the smaller id comes first. A total that misses $p$ by less than one
            part in $10^9$ counts as $p$, because both are rounded numbers.

    Returns:
        The logits, with $-\infty$ where a token is ruled out.

    Raises:
        ValueError: if `p` is outside $(0, 1]$.

    Examples:
        >>> def kept(probabilities, p):
        ...     logits = torch.tensor(probabilities).log()
        ...     return top_p_filter(logits, p).isfinite().tolist()
        >>> kept([0.50, 0.30, 0.15, 0.05], p=0.7)
        [True, True, False, False]
        >>> kept([0.90, 0.06, 0.03, 0.01], p=0.7)
        [True, False, False, False]

        At $p = k / n$, exactly $k$ of $n$ equally likely tokens stay:

        >>> sum(kept([1 / 49] * 49, p=5 / 49)), sum(kept([0.1] * 10, p=0.3))
        (5, 3)
    """
    if not 0 < p <= 1:
        raise ValueError(
            f"top_p must lie in (0, 1]; got {p}: 1 keeps every token, 0.9 is usual"
        )
    order = logits.argsort(dim=-1, descending=True, stable=True)
    x = logits.gather(-1, order).double()
    # Not divided by their total, equal weights are all 1, and their sums exact.
    weights = torch.exp(x - x[..., :1])
    total = weights.sum(dim=-1, keepdim=True)
    # A token goes when those *before* it already reach $p$. (Not when those up to and
    # with it do: then the first would go if it alone were enough.) At $p = 1$ none
    # goes, although a sum of rounded numbers may reach 1 before its end.
    before = weights.cumsum(dim=-1) - weights
    removed = torch.zeros_like(logits, dtype=torch.bool)
    enough = before >= p * (1 - ROUNDING) * total
    removed = removed.scatter(-1, order, enough & (p < 1))
    return logits.masked_fill(removed, -math.inf)


def pick(
    logits: Float[Tensor, " vocab"],
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    banned_ids: Collection[int] = (),
    random: torch.Generator | None = None,
) -> int:
    r"""Sample one token: ban, sharpen, filter, sample.

    Args:
        logits: those of one position.
        temperature: see [`apply_temperature`][minillm.generate.apply_temperature]; 0
            takes the largest logit, the smallest id among equals.
        top_k: see [`top_k_filter`][minillm.generate.top_k_filter].
        top_p: see [`top_p_filter`][minillm.generate.top_p_filter]; applied last.
        banned_ids: ids that are never sampled.
        random: where the chance comes from; `None` for PyTorch's own.

    Returns:
        The id.

    Raises:
        ValueError: if an argument is out of its range, a logit is not a number, or no
            token is possible.

    Examples:
        A thousand samples follow the probabilities:

        >>> logits = torch.tensor([0.50, 0.30, 0.15, 0.05]).log()
        >>> random = torch.Generator().manual_seed(0)
        >>> draws = [pick(logits, random=random) for _ in range(1000)]
        >>> shares = torch.tensor([draws.count(i) / 1000 for i in range(4)])
        >>> shares.allclose(logits.exp(), atol=0.05)
        True
        >>> pick(logits, temperature=0, banned_ids=[0])
        1
    """
    check_logits(logits)
    if banned_ids:
        banned = check_ids(banned_ids, len(logits))
        logits = logits.index_fill(0, torch.tensor(banned), -math.inf)
        check_logits(logits)
    if temperature == 0:
        return int(logits.argmax())
    # Only differences matter. In float64, and with the largest logit at 0, no
    # temperature is too small to divide by.
    logits = apply_temperature(logits.double() - logits.max(), temperature)
    if top_k is not None:
        logits = top_k_filter(logits, top_k)
    if top_p is not None:
        logits = top_p_filter(logits, top_p)
    return int(torch.multinomial(softmax(logits, dim=0), 1, generator=random))


def generate_naive(
    model: TransformerLM,
    ids: Sequence[int],
    max_new_tokens: int,
    seed: int,
    **settings: Any,
) -> list[int]:
    r"""Continue a text: read it, sample a token, append it, and again from the start.

    Args:
        model: the model.
        ids: the prompt, at least one id.
        max_new_tokens: how many to sample; with the prompt, at most `context_length`.
        seed: makes the sampling repeatable.
        **settings: those of [`pick`][minillm.generate.pick].

    Returns:
        The new ids alone, without the prompt.

    Examples:
        >>> from minillm.config import ModelConfig
        >>> model = TransformerLM(ModelConfig(50, 8, d_model=16, n_layers=1, n_heads=2))
        >>> naive = generate_naive(model, [1, 2], 6, seed=7)
        >>> len(naive), naive == generate(model, [1, 2], 6, seed=7)
        (6, True)
    """
    random, text = torch.Generator().manual_seed(seed), list(ids)
    for _ in range(max_new_tokens):
        with torch.inference_mode():
            logits = model(torch.tensor([text]))[0, -1]  # (V,)
        text.append(pick(logits, **settings, random=random))
    return text[len(ids) :]


def stream(
    model: TransformerLM,
    ids: Sequence[int],
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    stop_ids: Collection[int] = (),
    banned_ids: Collection[int] = (),
    use_cache: bool = True,
    decoder: Decoder | None = None,
    memory: Memory | None = None,
) -> Iterator[int]:
    r"""Continue a text token by token, and yield each new id as it is sampled.

    Same text as [`generate_naive`][minillm.generate.generate_naive], within the
    context. Unlike it, this keeps what the model has computed.

    The plain loop gives the model the whole text again for each new token:
    $1 + 2 + \dots + n$ positions in place of $n$. Count what that takes in the model of
    the demo, were its context 512 tokens long, in FLOPs ([`minillm.flops`][]), beside
    reading them once:

    >>> from minillm.config import ModelConfig
    >>> from minillm.flops import forward_flops
    >>> config = ModelConfig(2048, 512, d_model=128, n_layers=2, n_heads=4)
    >>> again = sum(forward_flops(config, 1, n).total for n in range(1, 513))
    >>> once = forward_flops(config, 1, 512).total
    >>> round(again / once)
    233

    But keys and values of the past do not change. Kept in a
    [`KVCache`][minillm.model.KVCache], they leave one new position to compute, which
    looks at all before it. All 512 such steps together take even less than reading the
    tokens once, where the mask throws half of the attention scores away:

    >>> steps = sum(forward_flops(config, 1, 1, past=n).total for n in range(512))
    >>> steps < once, round(again / steps)
    (True, 270)

    And the logits are the same. Reading the prompt (*prefill*) is one pass over all its
    tokens; after that, each step (*decode*) reads a single new one:

    >>> from minillm.model import KVCache
    >>> model = TransformerLM(config).double()
    >>> ids = torch.arange(8).unsqueeze(0)
    >>> cache = KVCache(config, batch_size=1)
    >>> prefill = model(ids[:, :5], cache)  # the prompt, in one pass
    >>> decode = [model(ids[:, t : t + 1], cache) for t in range(5, 8)]  # each token
    >>> torch.cat([prefill, *decode], dim=1).allclose(model(ids))
    True

    Prefill multiplies matrices, and is limited by how fast the machine can multiply.
    Decode reads every weight for each token and uses it once, so it is limited by how
    fast the machine can *read*: with 512 new tokens it gains a factor of 15 to 20, not
    of 270 ([measured](speed.md#with-and-without-a-cache), with four layers).
    [`minillm.inference.decoder`][] does what can be done about it.

    A text that outgrows the context goes on: the model then reads the last half of its
    context again, and has forgotten what came before.

    Args:
        model: the model.
        ids: the prompt, at least one id and at most `context_length`.
        max_new_tokens: when to stop at the latest.
        temperature: see [`pick`][minillm.generate.pick], also for the next two.
        top_k: how many tokens may be sampled.
        top_p: the share of probability that may be sampled.
        seed: makes the sampling repeatable; `None` samples anew each time.
        stop_ids: ids that end the text; they are not yielded.
        banned_ids: ids that are never sampled.
        use_cache: `False` reads the whole text again for each token, as a check.
        decoder: one made of this model for an earlier text; `None` makes one, which
            takes as long as some ten tokens.
        memory: what this model has read before, and will have read; a text that begins
            like the last one is read from where it differs.

    Returns:
        An iterator over the new ids.

    Raises:
        ValueError: if an argument is out of its range; or, while sampling, if the
            model's logits are not numbers.

    Examples:
        >>> from minillm.config import ModelConfig
        >>> _ = torch.manual_seed(0)
        >>> model = TransformerLM(ModelConfig(50, 8, d_model=16, n_layers=1, n_heads=2))
        >>> cached = list(stream(model, [1, 2], 20, seed=7))
        >>> uncached = list(stream(model, [1, 2], 20, seed=7, use_cache=False))
        >>> len(cached), cached == uncached
        (20, True)
        >>> stream(model, [1, 99], 5)
        Traceback (most recent call last):
        ValueError: the model knows the ids 0 to 49; got 99: is this its own tokenizer?
    """
    settings: dict[str, Any] = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "banned_ids": frozenset(banned_ids),
    }
    # Everything is checked now, not when the first token is asked for.
    prompt = check_prompt(ids, model.config)
    _check(model, max_new_tokens, settings)
    if decoder is not None:
        decoder.check(model)
    if memory is not None and memory.cache is not None:
        memory.cache.keep_for(model)
    random = torch.Generator()
    if seed is None:
        random.seed()
    else:
        random.manual_seed(seed)

    def draw(logits: Float[Tensor, " vocab"]) -> int:
        return pick(logits.cpu(), **settings, random=random)

    kept = (memory or Memory()) if use_cache else None
    tokens = _decode(model, prompt, draw, kept, decoder)
    return takewhile(lambda i: i not in stop_ids, islice(tokens, max_new_tokens))


def _decode(
    model: TransformerLM,
    ids: list[int],
    draw: Callable[[Float[Tensor, " vocab"]], int],
    memory: Memory | None,
    decoder: Decoder | None,
) -> Iterator[int]:
    """Yield new ids forever."""
    context_length = model.config.context_length
    device = model.token_embedding.weight.device
    start = 0  # the model sees ids[start:]
    cache = None
    fast = decoder is not None or suits(model)
    while True:
        if len(ids) - start > context_length:
            start, cache = len(ids) - (context_length + 1) // 2, None
        if memory is not None and cache is None:
            cache = memory.resume(ids[start:], model.config)
        read = start + (len(memory.ids) if memory is not None else 0)
        new = ids[read:]
        if fast and cache is not None and cache.length and len(new) == 1:
            decoder = decoder or Decoder(model)
            logits = decoder(new[0], cache)  # (V,)
        elif decoder is not None and cache is not None:
            logits = decoder.read(new, cache)[0]
        elif fast and cache is not None:
            logits = read_prompt(model, new, cache)[0]
        else:
            with torch.inference_mode():
                batch = torch.tensor([new], device=device)  # (1, T)
                logits = model(batch, cache)[0, -1]  # (V,)
        if memory is not None:
            memory.ids += new
        ids.append(draw(logits))
        yield ids[-1]


def _check(model: TransformerLM, max_new_tokens: int, settings: dict[str, Any]) -> None:
    """Refuse settings that nothing can be sampled with."""
    vocab_size = model.config.vocab_size
    check_temperature(settings["temperature"])
    check_ids(settings["banned_ids"], vocab_size)
    if len(settings["banned_ids"]) == vocab_size:
        raise ValueError("every id is banned: leave at least one")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must be 0 or more; got {max_new_tokens}")
    # Sampling among equals once checks the rest of the settings, and at a temperature
    # of 0 those too that are then ignored.
    settings = settings | {"temperature": settings["temperature"] or 1.0}
    pick(torch.zeros(vocab_size), **settings, random=torch.Generator())


def generate(
    model: TransformerLM, ids: Sequence[int], max_new_tokens: int, **settings: Any
) -> list[int]:
    r"""Continue a text, and return all new ids at once.

    Args:
        model: the model.
        ids: the prompt, at least one id and at most `context_length`.
        max_new_tokens: when to stop at the latest.
        **settings: those of [`stream`][minillm.generate.stream].

    Returns:
        The new ids alone, without the prompt.

    Raises:
        ValueError: see [`stream`][minillm.generate.stream].

    Examples:
        >>> from minillm.config import ModelConfig
        >>> model = TransformerLM(ModelConfig(50, 8, d_model=16, n_layers=1, n_heads=2))
        >>> generate(model, [1, 2], 3, seed=7) == list(stream(model, [1, 2], 3, seed=7))
        True
    """
    return list(stream(model, ids, max_new_tokens, **settings))


def stream_text(
    model: TransformerLM,
    tokenizer: BPETokenizer,
    prompt: str | Sequence[int],
    max_new_tokens: int,
    **settings: Any,
) -> Iterator[str]:
    r"""Continue a text, and yield what is new in it as it is sampled.

    A token is a run of bytes, and a character such as é may be cut between two tokens.
    Its first half is held back until the second is there. Ids of the model for which
    the tokenizer has no token are never sampled.

    Args:
        model: the model.
        tokenizer: the one that the model was trained with.
        prompt: the beginning. Before a text the model reads `begin_ids`; ids are read
            as they are. If nothing is left to read, the model reads `<|endoftext|>`,
            where the tokenizer has that.
        max_new_tokens: when to stop at the latest.
        **settings: those of [`stream`][minillm.generate.stream], and `begin_ids`. Those
            and the `stop_ids` are the tokenizer's unless they are given; the end, where
            nothing says it, is `<|endoftext|>`.

    Returns:
        An iterator over strings, none of them empty.

    Raises:
        ValueError: see [`stream`][minillm.generate.stream].

    Examples:
        >>> from minillm.config import ModelConfig
        >>> tokenizer = BPETokenizer.train(["the cat in the hat"], 260)
        >>> model = TransformerLM(ModelConfig(260, 16, 8, 1, 2))
        >>> pieces = stream_text(model, tokenizer, "the", 9, seed=0)
        >>> ids = generate(model, tokenizer.encode("the"), 9, seed=0)
        >>> "".join(pieces) == tokenizer.decode(ids)
        True
    """
    end_of_text = tokenizer.special_tokens.get("<|endoftext|>")
    begin_ids = settings.pop("begin_ids", tokenizer.begin_ids)
    if isinstance(prompt, str):
        prompt = [*begin_ids, *tokenizer.encode(prompt)]
    usual = [] if end_of_text is None else [end_of_text]
    settings.setdefault("stop_ids", tokenizer.stop_ids or usual)
    without_token = set(range(model.config.vocab_size)).difference(tokenizer.vocab)
    settings["banned_ids"] = without_token.union(settings.get("banned_ids", ()))
    tokens = stream(model, list(prompt) or usual, max_new_tokens, **settings)

    def pieces() -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for token in tokens:
            yield decoder.decode(tokenizer.decode_bytes([token]))
        yield decoder.decode(b"", final=True)

    return filter(None, pieces())
