r"""Conversations in a file, one a line.

**The question.** A data set for fine-tuning is a file of JSON lines, and every line was
written by somebody else. Which of them would ruin a training, and how is that known
before it begins?

Two forms are read, those of most published data sets: chats (`messages`) and
preferences (`prompt`, `chosen`, `rejected`). [`minillm.training.tuning`][] shows one of
each. In trl's variants, the prompt of a preference may stand at the beginning of both
answers instead, and strings in place of lists of messages are plain text. Other entries
of a line, such as a source, are passed over.

Refused, with the line: a chat that ends without an answer, or with an empty one; roles
in another order than an optional system, then user and assistant by turns; a preference
between two equal answers; a file that has both forms.

>>> import tempfile
>>> folder = tempfile.TemporaryDirectory()
>>> path = Path(folder.name) / "chats.jsonl"
>>> _ = path.write_text(
...     '{"messages": [{"role": "user", "content": "Hi"}]}', encoding="utf-8"
... )
>>> try:
...     read_lessons(path)
... except ValueError as error:
...     print(str(error).partition(", ")[2])
line 1: a chat ends with an answer; this one ends with 'user': add it, or drop the line
>>> folder.cleanup()

What is held out is decided by the hash of the prompt ([`minillm.corpus.prepare`][]), so
a question with several answers is on one side.

**Used by** `minillm tune`.
"""

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minillm.corpus.prepare import hash_of
from minillm.files.reading import parse_json

__all__ = ["Lesson", "hold_out", "read_lessons"]

Turn = tuple[str, str]  # who speaks, and what


class Lesson(NamedTuple):
    """One line of the file.

    Attributes:
        where: which file, which line.
        texts: a conversation to imitate; or two, of which the first is preferred.
        first: the turn from which on answers are learned.
        plain: whether it is plain text: a prompt and a continuation.
    """

    where: str
    texts: tuple[tuple[Turn, ...], ...]
    first: int
    plain: bool = False


def read_lessons(path: str | PathLike[str]) -> list[Lesson]:
    r"""Read chats, or preferences.

    Args:
        path: the file.

    Returns:
        The lessons in order, all of one kind.

    Raises:
        ValueError: if there is none, or a line is not what it should be; the error
            names it.

    Examples:
        See the beginning of this page.
    """
    lessons: list[Lesson] = []
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            where = f"{path}, line {number}"
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{where} is not UTF-8 at byte {error.start}: write it again"
                ) from None
            if text.strip():
                lessons.append(_lesson(parse_json(text, where), where))
                if len(lessons[-1].texts) != len(lessons[0].texts):
                    raise ValueError(
                        f"{where}: the file has both chats and preferences, which are "
                        "learned in different ways: make two files"
                    )
    if not lessons:
        raise ValueError(f"{path} has no chats: write one JSON object a line")
    return lessons


def _lesson(found: Any, where: str) -> Lesson:
    keys = set(found) if isinstance(found, dict) else set()
    if "messages" in keys and not {"chosen", "rejected"} & keys:
        turns = _turns(found["messages"], "messages", where)
        return Lesson(where, (_ordered(turns, where),), 0)
    if not {"chosen", "rejected"} <= keys:
        raise ValueError(
            f"{where}: a chat has messages, a preference has prompt, chosen and "
            f"rejected; this has {', '.join(sorted(keys))[:80] or 'neither'}"
        )
    sides = [found["chosen"], found["rejected"]]
    if found["chosen"] == found["rejected"]:
        raise ValueError(
            f"{where}: chosen and rejected are equal, so nothing is preferred: drop "
            "the line"
        )
    prompt = found.get("prompt", [])
    if all(isinstance(text, str) for text in (prompt, *sides)):
        if not all((prompt, *sides)):
            raise ValueError(
                f"{where}: prompt, chosen and rejected must have some text; got "
                f"{prompt!r:.20}, {sides[0]!r:.20} and {sides[1]!r:.20}"
            )
        texts = tuple((("user", prompt), ("assistant", side)) for side in sides)
        return Lesson(where, texts, 1, plain=True)
    given = _turns(prompt, "prompt", where)
    chosen, rejected = (
        _turns(side, name, where)
        for side, name in zip(sides, ("chosen", "rejected"), strict=True)
    )
    first = len(given)
    if "prompt" not in keys:  # then it is what both begin with
        pairs = zip(chosen, rejected, strict=False)
        first = next((i for i, (a, b) in enumerate(pairs) if a != b), 0)
    conversations = tuple(_ordered(given + side, where) for side in (chosen, rejected))
    for turns in conversations:
        if first < 1 or turns[first:][:1] == () or turns[first][0] != "assistant":
            raise ValueError(
                f"{where}: a preference is between two answers of the assistant to the "
                "same prompt: write that under prompt, and it ends with the user"
            )
    return Lesson(where, conversations, first)


def _turns(found: Any, name: str, where: str) -> tuple[Turn, ...]:
    """The messages of a list, each with a role and a text."""
    if not isinstance(found, list):
        raise ValueError(
            f"{where}: {name} must be a list of messages; got {found!r:.40}: a message "
            'looks like {"role": "user", "content": "Hello!"}'
        )
    turns = []
    for number, message in enumerate(found, 1):
        both = ("role", "content")
        known = message if isinstance(message, dict) else {}
        who, what = (known.get(key) for key in both)
        if not (isinstance(who, str) and isinstance(what, str)):
            raise ValueError(
                f"{where}: message {number} of {name} must have a role and a content, "
                f"both texts; got {message!r:.60}"
            )
        turns.append((who, what))
    return tuple(turns)


def _ordered(turns: tuple[Turn, ...], where: str) -> tuple[Turn, ...]:
    """Refuse roles in another order than models are trained on."""
    start = 1 if turns and turns[0][0] == "system" else 0
    for i, (who, what) in enumerate(turns[start:]):
        expected = ("user", "assistant")[i % 2]
        if who != expected:
            raise ValueError(
                f"{where}: message {start + i + 1} is of {who!r:.40}, where "
                f"{expected!r} is expected: an optional system, then user and "
                "assistant by turns"
            )
        if who == "assistant" and not what.strip():
            raise ValueError(
                f"{where}: message {start + i + 1}, an answer, is empty: write it, or "
                "drop the line"
            )
    if not turns or turns[-1][0] != "assistant":
        last = repr(turns[-1][0]) if turns else "nothing"
        raise ValueError(
            f"{where}: a chat ends with an answer; this one ends with {last}: add it, "
            "or drop the line"
        )
    return turns


def hold_out(
    lessons: Sequence[Lesson], share: float
) -> tuple[list[Lesson], list[Lesson]]:
    """Hold some lessons out, so that no prompt is on both sides.

    Args:
        lessons: all of them.
        share: which share of the prompts, in $(0, 1)$. At least one is held out, and at
            least one is not.

    Returns:
        Those to learn from, and those held out.

    Raises:
        ValueError: if all have the same prompt.

    Examples:
        >>> lessons = [
        ...     Lesson("", ((("user", str(i)), ("assistant", "a")),), 0)
        ...     for i in range(100)
        ... ]
        >>> [len(side) for side in hold_out(lessons, 0.1)]
        [92, 8]
    """
    values = [hash_of(json.dumps(_prompt(lesson))) for lesson in lessons]
    if min(values) == max(values):
        raise ValueError(
            f"{lessons[0].where}: {len(lessons)} lines with one prompt cannot be split "
            "into those to learn from and those held out: bring another prompt"
        )
    limit = min(max(share, float(np.nextafter(min(values), 1))), max(values))
    sides: tuple[list[Lesson], list[Lesson]] = ([], [])
    for lesson, value in zip(lessons, values, strict=True):
        sides[value < limit].append(lesson)
    return sides


def _prompt(lesson: Lesson) -> Sequence[Turn]:
    """What stands before the first answer that is learned."""
    turns = lesson.texts[0]
    answers = [i for i, (who, _) in enumerate(turns) if who == "assistant"]
    return turns[: next(i for i in answers if i >= lesson.first)]
