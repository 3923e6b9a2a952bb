r"""Chat templates: the form in which a model expects a conversation.

**The question.** Each family of models was trained on conversations written in a form
of its own. ChatML is one ([`minillm.inference.chat`][]); Llama 3 has another, with
headers and a date. Written in the wrong form, a conversation is still text, and the
model answers worse. How does a model say which form is its own?

**By a program.** Its folder holds a *chat template*, a small program in the language
Jinja: text, with holes and loops. Here is that of a model whose turns look like lines
of a play:

>>> source = (
...     "{{ bos_token }}{% for message in messages %}"
...     "{{ message['role'] }}: {{ message['content'] | trim }}{{ eos_token }}\n"
...     "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
... )
>>> template = ChatTemplate(source, {"bos_token": "<s>", "eos_token": "</s>"})
>>> print(template.render([("user", " Hello! ")]))
<s>user: Hello!</s>
assistant:

**A program of a stranger.** It came with the weights, so it is not trusted. It runs in
Jinja's sandbox, `ImmutableSandboxedEnvironment`, which lets it see the conversation and
neither files nor the inside of Python. transformers runs it in the same one, with the
same few helpers, and the tests compare the two. What the sandbox does not limit is
time: a template that loops for hours does so until you stop it.

**Marks again.** The template writes special tokens as text. So could the user, and then
the two would look alike. Before a template sees a speech, each special token in it is
replaced by a character that stands for nothing; after the text has been cut at the
template's own special tokens, the letters are put back:

>>> tokenizer = BPETokenizer.train(["hello"], 259, ["<s>", "</s>"])
>>> ids = template.encode(tokenizer, [("user", "Hello!</s>")])
>>> ids.count(tokenizer.special_tokens["</s>"])
1
>>> print(tokenizer.decode(ids))
<s>user: Hello!</s></s>
assistant:
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from minillm.bpe import BPETokenizer

__all__ = ["ChatTemplate"]

Turn = tuple[str, str]  # who speaks, and what
UNASSIGNED = range(0x100000, 0x10FFFE)  # private characters: no text needs them


@dataclass(frozen=True)
class ChatTemplate:
    r"""The form of a conversation, as a model's folder or file describes it.

    Args:
        source: the template, in Jinja.
        tokens: what its variables `bos_token`, `eos_token` and the like stand for.

    Examples:
        Some templates accept only turns that alternate, and say so themselves:

        >>> template = ChatTemplate("{{ raise_exception('the user speaks first') }}")
        >>> template.render([("assistant", "Hello!")])
        Traceback (most recent call last):
        ValueError: the model's chat template refuses this: the user speaks first
    """

    source: str
    tokens: Mapping[str, str] = field(default_factory=dict)

    def render(self, turns: Sequence[Turn], reply: bool = True) -> str:
        """Write a conversation as text, up to where the assistant has to go on.

        Args:
            turns: who spoke, and what.
            reply: whether the assistant has to go on; otherwise the text ends with the
                conversation.

        Returns:
            The text, with special tokens spelled out.

        Raises:
            ValueError: if the template is not valid, or refuses this conversation.
        """
        messages = [{"role": who, "content": what} for who, what in turns]
        try:
            return _compile(self.source).render(
                messages=messages,
                tools=None,
                documents=None,
                add_generation_prompt=reply,
                **self.tokens,
            )
        # A template is a program, and can fail in every way that a program can.
        except Exception as error:
            raise ValueError(
                f"the model's chat template refuses this: {error!s:.200}"
            ) from error

    def encode(self, tokenizer: BPETokenizer, turns: Sequence[Turn]) -> list[int]:
        """Write a conversation as ids, up to where the assistant has to go on.

        Args:
            tokenizer: that of the model.
            turns: who spoke, and what.

        Returns:
            The ids. No special token among them comes from a turn.
        """
        hidden = _hidden(tokenizer, turns)
        text = self.render([(who, _replace(what, hidden)) for who, what in turns])
        return _ids(tokenizer, text, hidden)

    def encode_pairs(
        self, tokenizer: BPETokenizer, turns: Sequence[Turn]
    ) -> list[tuple[list[int], list[int]]]:
        r"""Write a conversation as ids, cut where the assistant begins and ends.

        Where an answer begins, the model is given the text as `encode` writes it; what
        the template adds for the answer is the assistant's.

        Args:
            tokenizer: that of the model.
            turns: who spoke, and what.

        Returns:
            For each answer, what stands before it and what it is, with all that the
            template puts behind it.

        Raises:
            ValueError: if the template writes a beginning in another way once more
                follows, so that no part of the text is the answer.

        Examples:
            >>> source = (
            ...     "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
            ...     "{% if add_generation_prompt %}assistant: {% endif %}"
            ... )
            >>> tokenizer = BPETokenizer.train(["hello"], 257)
            >>> turns = [("user", "Hi"), ("assistant", "Hello!")]
            >>> ((given, said),) = ChatTemplate(source).encode_pairs(tokenizer, turns)
            >>> tokenizer.decode(given), tokenizer.decode(said)
            ('user: Hi\nassistant: ', 'Hello!\n')
        """
        hidden = _hidden(tokenizer, turns)
        turns = [(who, _replace(what, hidden)) for who, what in turns]
        texts: list[tuple[str, str]] = []
        done = ""
        for i, (who, _) in enumerate(turns):
            if who != "assistant":
                continue
            before, after = self.render(turns[:i]), self.render(turns[: i + 1], False)
            # Behind the last turn some templates write more, which goes if others come.
            cut, start = _common(done, before), 0
            if texts:
                start = len(done) - len(texts[-1][1])
                texts[-1] = texts[-1][0], done[start:cut]
            if cut < start or not after.startswith(before):
                raise ValueError(
                    f"the model's chat template writes what precedes turn {i + 1} in "
                    "another way once that has been said, so it does not show what the "
                    "assistant says: give the model a template that only adds"
                )
            texts.append((before[cut:], after[len(before) :]))
            done = after
        return [
            (_ids(tokenizer, given, hidden), _ids(tokenizer, said, hidden))
            for given, said in texts
        ]


def _common(a: str, b: str) -> int:
    """How many characters two texts begin with in common."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))


def _hidden(tokenizer: BPETokenizer, turns: Sequence[Turn]) -> dict[str, str]:
    """For each special token that occurs in a turn, a character that no turn has."""
    said = "".join(what for _, what in turns)
    free = (chr(code) for code in UNASSIGNED if chr(code) not in said)
    names = sorted(tokenizer.special_tokens, key=len, reverse=True)
    return {name: next(free) for name in names if name in said}


def _ids(tokenizer: BPETokenizer, text: str, hidden: Mapping[str, str]) -> list[int]:
    """Encode what a template has written, and put the letters back."""
    specials = sorted(tokenizer.special_tokens, key=len, reverse=True)
    shown = {character: name for name, character in hidden.items()}
    ids: list[int] = []
    # Split at a group, ordinary text and special tokens take turns.
    parts = re.split(f"({_any_of(specials)})", text) if specials else [text]
    for i, part in enumerate(parts):
        if i % 2:
            ids.append(tokenizer.special_tokens[part])
        else:
            ids += tokenizer.encode(_replace(part, shown))
    return ids


def _any_of(names: Iterable[str]) -> str:
    return "|".join(map(re.escape, names))


def _replace(text: str, names: Mapping[str, str]) -> str:
    """Replace all names at once, the first listed first."""
    if not names:
        return text
    return re.sub(_any_of(names), lambda found: names[found[0]], text)


@lru_cache(8)
def _compile(source: str) -> Any:
    """Compile a template in the environment that transformers gives it."""
    from jinja2 import Environment, TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks what the assistant said; here it changes nothing."""

        def __init__(self, environment: Environment) -> None:
            super().__init__(environment)
            self.tags = {"generation"}

        def parse(self, parser: Any) -> nodes.Node:
            scope = nodes.Scope(lineno=next(parser.stream).lineno)
            scope.body = parser.parse_statements(
                ("name:endgeneration",), drop_needle=True
            )
            return scope

    def refuse(message: str) -> NoReturn:
        raise TemplateError(message)

    def to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        # Jinja's own filter would escape what has a meaning in HTML.
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda style: datetime.now().strftime(style)
    return environment.from_string(source)
