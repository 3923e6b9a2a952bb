r"""What is forgotten while answering is learned.

**The question.** [`minillm.posttraining`][] trains a small model on a few
demonstrations of one task, and evaluates this task. What has become of all that the
model knew before?

Every run starts from a model of the fairy tales, a quarter of that of `minillm demo`
and trained for a minute. It is fine-tuned on demonstrations like this one, a sentence
from the tales and one of its words:

>>> asked("duckling", "The poor duckling was very sad.")
('Write a sentence with "duckling": ', 'The poor duckling was very sad.')

Measured are the loss on unseen tales, before and after; and the share of answers that
are one sentence and have the word in them, for words that were asked for in the
demonstrations and for words that were not.

**The remedy** is older than language models (*rehearsal*: Robins 1995): a part of each
batch is old text. It takes the place of demonstrations, so every run costs the same:

>>> len({compute(config)[1] for config in VARIANTS.values()})
1

**Told in** [`minillm.training.imitation`][], on the bench of [`minillm.labs.bench`][].
"""

import re
from collections.abc import Sequence
from functools import cache
from statistics import fmean
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from minillm.bpe import BPETokenizer
from minillm.config import ModelConfig
from minillm.data import END_OF_TEXT, andersen, end_of_text, split, tokenize
from minillm.flops import aligned, training_flops
from minillm.inference.batched import sample_batch
from minillm.labs.bench import Config, Lab, Point, by_config, committed, plan
from minillm.model import TransformerLM
from minillm.train import (
    AdamW,
    TrainConfig,
    clip_gradients,
    cosine_schedule,
    evaluate,
    get_batch,
    train,
)
from minillm.training.batches import Tokens
from minillm.training.imitation import sft_loss

__all__ = ["BASE", "LAB", "VARIANTS", "Compute", "asked", "compute", "runs"]

BASE: Config = {
    "tales": 500,  # steps on the tales before
    "demonstrations": 30,
    "steps": 100,
    "lr": 4e-3,
    "old": 0.0,  # how much of a batch is old text
}
"""The configuration from which the others differ in one or two entries."""

CHANGES: dict[str, Config] = {
    "demonstrations": {},
    "a quarter old": {"old": 0.25},
}
VARIANTS: dict[str, Config] = {name: BASE | some for name, some in CHANGES.items()}
"""The runs by name."""

SHAPE = ModelConfig(1024, context_length=64, d_model=64, n_layers=2, n_heads=4)
TALES = 8  # sequences in a step on the tales
BATCH = 32
WIDTH = 48  # tokens of a demonstration, the longest ones left out
ASKED = 50  # words of each kind that are asked for
UNSEEN = 10_000  # tokens of unseen tales


class Compute(NamedTuple):
    """The FLOPs of a run: of the tales before, and of fine-tuning."""

    tales: int
    tuning: int


def compute(config: Config) -> Compute:
    """Count the FLOPs of a run before it starts.

    Args:
        config: the run.

    Returns:
        The FLOPs.
    """
    before = training_flops(SHAPE, TALES, SHAPE.context_length)
    step = training_flops(SHAPE, BATCH, WIDTH - 1)
    return Compute(config["tales"] * before, config["steps"] * step)


def asked(word: str, sentence: str) -> tuple[str, str]:
    """Write a demonstration.

    Args:
        word: the word that is asked for.
        sentence: a sentence with this word.

    Returns:
        The prompt and the answer.
    """
    return f'Write a sentence with "{word}": ', sentence


class Text(NamedTuple):
    """The tales as tokens, and the demonstrations made of them."""

    tokenizer: BPETokenizer
    tokens: Tokens
    unseen: Tokens
    pairs: list[tuple[str, str, str]]  # word, prompt, answer
    new: list[str]  # words that no demonstration asks for


@cache
def _text() -> Text:
    training, validation = split(andersen())
    tokenizer = BPETokenizer.train(training, SHAPE.vocab_size, [END_OF_TEXT])
    sentences = [
        " ".join(found.split())
        for tale in training
        for found in re.findall(r"(?<=[.!?]\s)[A-Z][\w\s,;'-]{15,80}[.!?]", tale)
    ]
    random = torch.Generator().manual_seed(0)
    order = torch.randperm(len(sentences), generator=random).tolist()
    chosen: dict[str, str] = {}  # one sentence for each word
    for i in order:
        for word in re.findall(r"[a-z]{4,}", sentences[i]):
            chosen.setdefault(word, sentences[i])
    words = list(chosen)
    new, known = words[:ASKED], words[ASKED:]
    pairs = [(word, *asked(word, chosen[word])) for word in known]
    fit = [p for p in pairs if sum(len(tokenizer.encode(x)) for x in p[1:]) < WIDTH]
    tokens, unseen = (tokenize(part, tokenizer) for part in (training, validation))
    return Text(tokenizer, tokens, unseen[:UNSEEN], fit, new)


def _pack(
    text: Text, pairs: Sequence[tuple[str, str, str]]
) -> tuple[Int[Tensor, "n seq"], Bool[Tensor, "n seq"]]:
    end = end_of_text(text.tokenizer)
    ids = torch.full((len(pairs), WIDTH), end)
    mask = torch.zeros(len(pairs), WIDTH, dtype=torch.bool)
    for row, learned, (_, prompt, answer) in zip(ids, mask, pairs, strict=True):
        head, tail = (text.tokenizer.encode(part) for part in (prompt, answer))
        row[: len(head) + len(tail)] = torch.tensor(head + tail)
        learned[len(head) : len(head) + len(tail) + 1] = True  # the end, too
    return ids, mask


@cache
def _told(steps: int, seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    model = TransformerLM(SHAPE)
    train(model, _text().tokens, TrainConfig(steps=steps, batch_size=TALES, seed=seed))
    return model.state_dict()


def _obeys(model: TransformerLM, words: Sequence[str], seed: int) -> float:
    """How often is the answer one sentence that has the word in it?"""
    text, end = _text(), end_of_text(_text().tokenizer)
    prompts = [text.tokenizer.encode(asked(word, "")[0]) for word in words]
    samples = sample_batch(
        model,
        prompts,
        SHAPE.context_length - max(map(len, prompts)),
        n=2,
        stop_ids=[end],
        random=torch.Generator().manual_seed(seed),
    )
    right = [
        ids[-1] == end and word in re.findall(r"[a-z]+", text.tokenizer.decode(ids))
        for ids, word in zip(
            samples.new_ids(), [w for w in words for _ in range(2)], strict=True
        )
    ]
    return fmean(right)


def _run(config: Config, seed: int) -> dict[str, Any]:
    text, model = _text(), TransformerLM(SHAPE)
    model.load_state_dict(_told(config["tales"], seed))
    before = evaluate(model, text.unseen)
    random = torch.Generator().manual_seed(1000 + seed)
    order = torch.randperm(len(text.pairs), generator=random).tolist()
    shown = [text.pairs[i] for i in order[: config["demonstrations"]]]
    ids, mask = _pack(text, shown)
    n_old = round(BATCH * config["old"])
    weights = list(model.parameters())
    optimizer = AdamW(weights, betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(1, config["steps"] + 1):
        i = torch.randint(len(ids), (BATCH - n_old,), generator=random)
        inputs, targets, learned = ids[i, :-1], ids[i, 1:], mask[i, 1:]
        if n_old:
            old = get_batch(text.tokens, n_old, WIDTH - 1, generator=random)
            inputs, targets = torch.cat([inputs, old[0]]), torch.cat([targets, old[1]])
            learned = torch.cat([learned, torch.ones_like(old[0], dtype=torch.bool)])
        loss = sft_loss(model(inputs), targets, learned)
        lr = cosine_schedule(step, config["lr"], config["lr"] / 10, 10, config["steps"])
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        loss.backward()
        clip_gradients(weights, 1.0)
        optimizer.step()
    seen = [word for word, _, _ in shown[:ASKED]]
    return {
        "tuning_flops": compute(config).tuning,
        "before": round(before, 4),
        "after": round(evaluate(model, text.unseen), 4),
        "seen": round(_obeys(model, seen, seed), 4),
        "new": round(_obeys(model, text.new, seed), 4),
    }


def _points(quick: bool) -> list[Point]:
    if quick:
        return plan(VARIANTS.values(), seeds=1)
    return plan(VARIANTS.values(), seeds=3)


def _report(results: list[dict[str, Any]]) -> str:
    rows = [["old text", "seeds", "tales before", "after", "obeys"]]
    for config, same in by_config(results):
        means = [fmean(r[key] for r in same) for key in ("before", "after", "seen")]
        rows.append([
            f"{config['old']:.0%}",
            str(len(same)),
            *(f"{mean:.2f}" for mean in means),
        ])
    return aligned(rows)


LAB = Lab("forgetting", 1, _points, _run, lambda config: sum(compute(config)), _report)


def runs(name: str) -> list[dict[str, Any]]:
    """Read the committed results of a variant.

    Args:
        name: one of [`VARIANTS`][minillm.labs.forgetting.VARIANTS].

    Returns:
        One dictionary for each seed.

    Examples:
        >>> [r["seed"] for r in runs("demonstrations")]
        [0, 1, 2]
    """
    found = [r for r in committed(LAB) if r["config"] == VARIANTS[name]]
    return sorted(found, key=lambda r: r["seed"])
