r"""The commands `minillm generate` and `minillm chat`.

The course does not explain this module: it puts [`minillm.generate`][] and
[`minillm.inference.chat`][] on a terminal.
"""

import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

__all__ = ["chat", "generate"]

Length = Annotated[int, typer.Option(min=0, help="When to stop.")]
Temperature = Annotated[
    float, typer.Option(help="Below 1 safer, above 1 wilder, 0 always the likeliest.")
]
TopP = Annotated[
    float | None, typer.Option(help="Draw from the likeliest share p only.")
]
Seed = Annotated[int | None, typer.Option(help="The same seed gives the same text.")]


def generate(
    source: Annotated[
        str,
        typer.Argument(
            help="A run, any Llama folder, a GGUF file, or a name on the hub."
        ),
    ],
    prompt: Annotated[str, typer.Argument(help="How the text begins.")] = "",
    max_new_tokens: Length = 200,
    temperature: Temperature = 0.8,
    top_k: Annotated[
        int | None, typer.Option(help="Draw from the k likeliest tokens only.")
    ] = None,
    top_p: TopP = 0.95,
    seed: Seed = None,
) -> None:
    """Continue PROMPT with a trained model. The text is printed as it is written."""
    from minillm.formats.opening import open_model
    from minillm.generate import stream_text

    model, tokenizer, begin_ids, stop_ids = open_model(source)
    pieces = stream_text(
        model,
        tokenizer,
        prompt,
        max_new_tokens,
        begin_ids=begin_ids,
        stop_ids=stop_ids,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
    )
    print(prompt, end="", flush=True)
    with _naming(source):
        for piece in pieces:
            print(piece, end="", flush=True)
    print()


def chat(
    source: Annotated[
        str,
        typer.Argument(
            help="A model that was trained to chat: a GGUF file, a Llama folder, or a "
            "name on the hub."
        ),
    ],
    system: Annotated[
        str, typer.Option(help="What the model is told before you speak.")
    ] = "You are a helpful assistant.",
    max_new_tokens: Length = 400,
    temperature: Temperature = 0.4,
    top_p: TopP = 0.9,
    seed: Seed = None,
) -> None:
    """Talk to a model. An empty line, or the end of the input, ends it."""
    from minillm.formats.opening import open_model
    from minillm.inference.chat import reply

    model, tokenizer, _, stop_ids = open_model(source)

    def answers(turns: list[tuple[str, str]]) -> Iterator[str]:
        return reply(
            model,
            tokenizer,
            turns,
            max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            stop_ids=stop_ids,
        )

    turns = [("system", system)] if system else []
    with _naming(source):  # what no words can mend is refused before anyone speaks
        answers([*turns, ("user", "")])
    while said := _ask():
        try:
            pieces = answers([*turns, ("user", said)])
        except ValueError as error:  # too long, say: what was said before still stands
            print(f"not read: {error}", file=sys.stderr)
            continue
        answer = ""
        with _naming(source):
            for piece in pieces:
                print(piece, end="", flush=True)
                answer += piece
        print()
        turns += [("user", said), ("assistant", answer)]


@contextmanager
def _naming(source: str) -> Generator[None, None, None]:
    """Say of a mistake which model it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"cannot go on with {source}: {error}") from error


def _ask() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        print()
        return ""
