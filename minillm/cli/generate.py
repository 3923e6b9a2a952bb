r"""The commands `minillm generate` and `minillm chat`.

The course does not explain this module: it puts [`minillm.generate`][] and
[`minillm.inference.chat`][] on a terminal.
"""

import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from minillm.files.opening import Opened

__all__ = ["chat", "generate"]

Length = Annotated[int, typer.Option(min=0, help="When to stop.")]
Temperature = Annotated[
    float, typer.Option(help="Below 1 safer, above 1 wilder, 0 always the likeliest.")
]
TopP = Annotated[
    float | None, typer.Option(help="Sample from the likeliest share p only.")
]
Seed = Annotated[int | None, typer.Option(help="The same seed gives the same text.")]
Device = Annotated[str, typer.Option(help="Where to compute: auto, cpu, cuda or mps.")]


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
        int | None, typer.Option(help="Sample from the k likeliest tokens only.")
    ] = None,
    top_p: TopP = 0.95,
    seed: Seed = None,
    device: Device = "auto",
) -> None:
    """Continue PROMPT with a trained model. The text is printed as it is written."""
    from minillm.generate import stream_text

    model, tokenizer, _ = _open(source, device)
    pieces = stream_text(
        model,
        tokenizer,
        prompt,
        max_new_tokens,
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
    device: Device = "auto",
) -> None:
    """Talk to a model. An empty line, or the end of the input, ends it."""
    answers = _replies(
        _open(source, device),
        max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
    )
    turns = [("system", system)] if system else []
    with _naming(source):  # what no line can mend is refused before the first one
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


def _open(source: str, device: str) -> "Opened":
    """Open a model on a device."""
    from minillm.files.eight_bit_files import open_eight_bits, pays
    from minillm.files.opening import open_model
    from minillm.runs.checks import pick_device

    chosen = pick_device(device)
    if pays(source, chosen):
        return open_eight_bits(source)
    opened = open_model(source)
    opened.model.to(chosen)
    return opened


def _replies(
    opened: "Opened", max_new_tokens: int, **settings: Any
) -> Callable[[list[tuple[str, str]]], Iterator[str]]:
    """Give what continues a conversation by the assistant's next turn."""
    from minillm.generate import stream_text
    from minillm.inference import chat as form
    from minillm.inference.decoder import Decoder, Memory, suits

    model, tokenizer, template = opened
    decoder = Decoder(model) if suits(model) else None
    memory = Memory()  # the next question is read behind the last answer
    # Half of the context at least is for what was said.
    room = min(max_new_tokens, model.config.context_length // 2)
    most = model.config.context_length - room

    def answers(turns: list[tuple[str, str]]) -> Iterator[str]:
        left = form.recent(tokenizer, turns, most, template)
        return stream_text(
            model,
            tokenizer,
            form.encode_chat(tokenizer, left, template),
            max_new_tokens,
            stop_ids=form.turn_ends(tokenizer),
            decoder=decoder,
            memory=memory,
            **settings,
        )

    return answers


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
