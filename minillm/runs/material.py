r"""What a fine-tuning begins with: a model, and chats written in its form.

**The question.** The model comes from a folder or a file, the chats from another, and
each may be wrong in its own way. What has to be known before the first step?

Whether every line can be written in the model's form and fits into its context; which
prompts are held out; and by which hashes both are recognized when the run goes on. A
model without any form of a chat gets a plain one
([`plain_template`][minillm.inference.chat.plain_template]).

**Before this:** [`minillm.corpus.chats`][]. **Used by** [`minillm.runs.tune`][].
"""

import hashlib
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from minillm.bpe import BPETokenizer
from minillm.corpus.chats import Lesson, hold_out, read_lessons
from minillm.files.adapters import fingerprint
from minillm.files.opening import find, open_model
from minillm.inference.chat import MARKS, encode_answers, plain_template
from minillm.inference.templates import ChatTemplate
from minillm.model import TransformerLM
from minillm.training.tuner import Example, Item

__all__ = ["Material", "gather"]


@dataclass(frozen=True)
class Material:
    """A model to tune, and what it shall learn.

    Attributes:
        name: which file.
        training: the items to learn from.
        validation: those held out.
        digest: a hash of all of them.
        preferences: whether each item is two answers.
        model: the model, in float32.
        tokenizer: its tokenizer.
        template: the form of its chats.
        own_form: whether the model came with a form.
        base: where it came from.
        made_for: its fingerprint.
        question: what the first held-out prompt asks.
    """

    name: str
    training: list[Item]
    validation: list[Item]
    digest: str
    preferences: bool
    model: TransformerLM
    tokenizer: BPETokenizer
    template: ChatTemplate | None
    own_form: bool
    base: str
    made_for: str
    question: str

    @property
    def longest(self) -> int:
        """The most tokens that the model reads of a text."""
        items = [*self.training, *self.validation]
        return max(len(e.ids) for item in items for e in item) - 1


def gather(
    source: str | PathLike[str], data: str | PathLike[str], validation: float
) -> Material:
    r"""Open a model, and write down in its form what it shall learn.

    Args:
        source: a run, a Llama folder, a GGUF file, or a name on the hub.
        data: a file of chats or of preferences.
        validation: which share of the prompts is held out.

    Returns:
        Both.

    Raises:
        FileNotFoundError: if one of them is missing.
        ValueError: if a line is not what it should be, or too long for the model.
    """
    lessons = read_lessons(data)  # before the model, which takes longer
    sides = hold_out(lessons, validation)
    path = find(source)
    model, tokenizer, template = open_model(path)
    own_form = template is not None or MARKS[0] in tokenizer.special_tokens
    if not own_form:
        template = plain_template(tokenizer)
    most, digest = model.config.context_length, hashlib.sha256()
    items: list[list[Item]] = []
    for side in sides:
        items.append([_item(lesson, tokenizer, template, most) for lesson in side])
        for item in items[-1]:
            for e in item:
                digest.update(e.ids.tobytes() + e.mask.tobytes() + b"end")
    turns = sides[1][0].texts[0]
    first = next(
        i
        for i, (who, _) in enumerate(turns)
        if who == "assistant" and i >= sides[1][0].first
    )
    return Material(
        name=Path(data).name,
        training=items[0],
        validation=items[1],
        digest=digest.hexdigest()[:16],
        preferences=len(lessons[0].texts) == 2,
        model=model.float(),
        tokenizer=tokenizer,
        template=template,
        own_form=own_form,
        # A path from elsewhere means something else; a name on the hub does not.
        base=str(path.resolve()) if Path(source).exists() else str(source),
        made_for=fingerprint(model),
        question=turns[first - 1][1],
    )


def _item(
    lesson: Lesson, tokenizer: BPETokenizer, template: ChatTemplate | None, most: int
) -> Item:
    """Write a lesson as ids, each text with what is learned of it."""
    examples = []
    for turns in lesson.texts:
        try:
            if lesson.plain:
                ids, mask = _plain(tokenizer, *(what for _, what in turns))
            else:
                ids, mask = encode_answers(tokenizer, turns, template, lesson.first)
        except ValueError as error:
            raise ValueError(f"{lesson.where}: {error}") from error
        # The last token is predicted, and not read.
        if len(ids) - 1 > most:
            raise ValueError(
                f"{lesson.where}: {len(ids) - 1} tokens up to the end of the answer do "
                f"not fit into the model's context of {most}: shorten it, or drop the "
                "line"
            )
        examples.append(Example(np.array(ids, np.int32), np.array(mask)))
    return tuple(examples)


def _plain(
    tokenizer: BPETokenizer, prompt: str, answer: str
) -> tuple[list[int], list[bool]]:
    """Write plain text as ids: a prompt, and a continuation that ends."""
    usual_end = tokenizer.special_tokens.get("<|endoftext|>")
    ends = [usual_end] if usual_end is not None else tokenizer.stop_ids
    if not ends:
        raise ValueError(
            "the tokenizer has no token that ends a text, so the model could not learn "
            "to stop: write chats instead of strings"
        )
    given = [*tokenizer.begin_ids, *tokenizer.encode(prompt)]
    said = [*tokenizer.encode(answer), ends[0]]
    return given + said, [False] * len(given) + [True] * len(said)
