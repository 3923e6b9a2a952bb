r"""The command `minillm chat`.

The course does not explain this module: it puts [`minillm.chat`][] on a terminal.
"""

from typing import Annotated

import typer

__all__ = ["chat"]


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
    max_new_tokens: Annotated[int, typer.Option(min=1, help="When to stop.")] = 400,
    temperature: Annotated[
        float,
        typer.Option(help="Below 1 safer, above 1 wilder, 0 always the likeliest."),
    ] = 0.4,
    top_p: Annotated[
        float | None, typer.Option(help="Draw from the likeliest share p only.")
    ] = 0.9,
    seed: Annotated[
        int | None, typer.Option(help="The same seed gives the same replies.")
    ] = None,
) -> None:
    """Talk to a model. An empty line, or the end of the input, ends it."""
    from minillm.chat import encode_chat, reply
    from minillm.hub_load import open_model

    model, tokenizer, *_ = open_model(source)
    turns = [("system", system)] if system else []
    encode_chat(tokenizer, turns)  # refuses what cannot chat before anyone speaks
    while said := _ask():
        turns.append(("user", said))
        answer = ""
        for piece in reply(
            model,
            tokenizer,
            turns,
            max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
        ):
            print(piece, end="", flush=True)
            answer += piece
        print()
        turns.append(("assistant", answer))


def _ask() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        print()
        return ""
