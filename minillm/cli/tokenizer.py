r"""The commands `minillm tokenizer train`, `encode`, `decode` and `show`.

The course does not explain this module: it brings [`minillm.bpe`][] to a
terminal. Where there is no terminal, `encode` and `decode` pass bytes on unchanged, so
that one undoes the other:

```sh
minillm tokenizer train --out fairy.json
minillm tokenizer show fairy.json "The word strawberry" --merges
minillm tokenizer encode fairy.json < text.txt | minillm tokenizer decode fairy.json
```
"""

import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from minillm.config import VOCAB_SIZE

if TYPE_CHECKING:
    from rich.text import Text

    from minillm.bpe import BPETokenizer

__all__ = ["app", "decode", "encode", "show", "train"]

app = typer.Typer(
    name="tokenizer",
    help="Train a tokenizer, use it, and look into it.",
    no_args_is_help=True,
)

# Grounds on which black letters can be read, also by colour-blind readers.
COLOURS = ("#9ecae9", "#ffbf79", "#88d27a", "#d6a5c9", "#f2e394")

# `--merges` prints a line for each merge of each word.
LONGEST_SHOWN = 2000

Tokenizer = Annotated[
    Path,
    typer.Argument(
        metavar="TOKENIZER", help="A tokenizer.json, or the folder that holds one."
    ),
]
GivenText = Annotated[
    str | None, typer.Argument(metavar="TEXT", help="The text; or give --file.")
]
File = Annotated[
    Path | None, typer.Option(help="Read this file. Without it, standard input.")
]
Special = Annotated[
    bool,
    typer.Option(
        "--allow-special", help="Take special tokens in the text for what they are."
    ),
]
Workers = Annotated[int | None, typer.Option(help="How many processes work.")]


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="The tokenizer.json to write.")],
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE",
            help="Texts in UTF-8; without any, Andersen's fairy tales.",
        ),
    ] = None,
    vocab_size: Annotated[
        int, typer.Option(help="Bytes, merges and special tokens together.")
    ] = VOCAB_SIZE,
    special: Annotated[
        list[str] | None, typer.Option(help="A special token; may be repeated.")
    ] = None,
    pattern: Annotated[
        str, typer.Option(help="Where a text may be cut: gpt2, gpt4 or o200k.")
    ] = "gpt2",
    tie_break: Annotated[
        str, typer.Option(help="Among equals: bytes, first or huggingface.")
    ] = "bytes",
    workers: Workers = None,
) -> None:
    """Learn a tokenizer from files. It is written as a tokenizer.json."""
    from minillm.bpe import GPT2_PATTERN, GPT4_PATTERN, O200K_PATTERN, BPETokenizer

    known = {"gpt2": GPT2_PATTERN, "gpt4": GPT4_PATTERN, "o200k": O200K_PATTERN}
    if pattern not in known:
        raise ValueError(f"--pattern is one of {', '.join(known)}, not {pattern!r}")
    # What would only fail at the end of the work fails now.
    for file in files or []:
        file.open("rb").close()
    if not out.parent.is_dir():
        raise ValueError(f"there is no folder {out.parent} to write {out.name} into")
    tokenizer = BPETokenizer.train(
        _documents(files or [], known[pattern], special or []),
        vocab_size,
        special or [],
        pattern=known[pattern],
        tie_break=tie_break,
        workers=workers,
        progress=True,
    )
    tokenizer.save(out)
    n_special = len(tokenizer.special_tokens)
    print(
        f"{out}: {len(tokenizer.vocab):,} tokens = 256 bytes + "
        f"{len(tokenizer.merges):,} merges + {n_special} special"
    )


def _documents(files: list[Path], pattern: str, specials: list[str]) -> Iterable[str]:
    from minillm.data import andersen
    from minillm.tokenizer.streams import check_specials, source_documents

    if not files:
        return andersen()
    names = check_specials(specials)
    # Nothing is merged across two files.
    return chain.from_iterable(source_documents(f, pattern, names) for f in files)


@app.command()
def encode(
    tokenizer: Tokenizer,
    text: GivenText = None,
    file: File = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the ids into this .npy file.")
    ] = None,
    allow_special: Special = False,
    workers: Workers = None,
) -> None:
    """Turn text into ids. They are printed, or written into a .npy file."""
    ours = _load(tokenizer)
    allowed = "all" if allow_special else ()
    if workers is not None and (file is None or out is None):
        raise ValueError("--workers is for --file and --out together")
    if out is not None and file is not None:
        if text is not None:
            raise ValueError("give the text or --file, not both")
        n_ids = ours.encode_file(file, out, workers, allowed_special=allowed)
        print(f"{out}: {n_ids:,} ids")
        return
    ids = ours.encode_iterable(_parts(text, file), allowed)
    if out is None:
        print(*ids)
        return
    import numpy as np

    from minillm.files.writing import atomic_write

    dtype = np.min_scalar_type(max(ours.vocab_size - 1, 0))
    array = np.fromiter(ids, dtype)
    with atomic_write(out) as opened:
        np.save(opened, array)
    print(f"{out}: {len(array):,} ids")


@app.command()
def decode(
    tokenizer: Tokenizer,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="The ids.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="Read this .npy file. Without it, standard input."),
    ] = None,
) -> None:
    """Turn ids into text."""
    ours = _load(tokenizer)
    if ids and file is not None:
        raise ValueError("give the ids or --file, not both")
    if file is not None:
        from minillm.files.reading import open_array

        data = ours.decode_bytes(open_array(file))
    else:
        data = ours.decode_bytes(map(_id, ids or "".join(_stdin()).split()))
    # Bytes, because a row of ids need not end where a character does.
    sys.stdout.buffer.write(data)
    if sys.stdout.isatty():
        sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()


@app.command()
def show(
    tokenizer: Tokenizer,
    text: GivenText = None,
    file: File = None,
    merges: Annotated[
        bool, typer.Option("--merges", help="Show how each word was merged.")
    ] = False,
    allow_special: Special = False,
) -> None:
    """Colour the tokens of a text. With --merges, say how each word came about."""
    from rich.console import Console
    from rich.text import Text

    from minillm.bpe import compression_ratio, show_merges

    ours = _load(tokenizer)
    allowed = "all" if allow_special else ()
    whole = "".join(_parts(text, file))
    if merges and len(whole) > LONGEST_SHOWN:
        raise ValueError(
            f"--merges prints each step of each word: give it at most {LONGEST_SHOWN} "
            f"characters, not {len(whole)}"
        )
    # Nothing but the colours is ours: no marking of numbers, no wrapping at words.
    console = Console(highlight=False, soft_wrap=True)
    plain = console.color_system is None
    ids = ours.encode(whole, allowed)
    console.print(_coloured([ours.vocab[id_] for id_ in ids], plain))
    if ids:
        ratio = compression_ratio(whole, ids)
        n_bytes = len(whole.encode())
        print(f"{n_bytes:,} bytes, {len(ids):,} tokens, {ratio:.2f} bytes a token")
    if not merges:
        return
    numbers = {pair: i for i, pair in reversed(list(enumerate(ours.merges, 1)))}
    words = {word.text: word for word in show_merges(ours, whole, allowed)}
    for word in words.values():
        console.print(Text("\n" + _visible(word.text.encode()), style="bold"))
        before: list[bytes] = []
        for step in word.steps:
            line = Text("  ").append(_coloured(step, plain, in_text=False))
            console.print(line.append(_explain(before, step, numbers)))
            before = step


def _explain(
    before: list[bytes], step: list[bytes], numbers: dict[tuple[bytes, bytes], int]
) -> str:
    """Say which merge led from one step to the next."""
    if not before:
        return ""
    at = next(i for i, (a, b) in enumerate(zip(before, step, strict=False)) if a != b)
    number = numbers.get((before[at], before[at + 1]))
    return "   a token, taken whole" if number is None else f"   merge {number:,}"


def _coloured(tokens: list[bytes], plain: bool, in_text: bool = True) -> "Text":
    from rich.text import Text

    # Without colours (a pipe, NO_COLOR) a bar shows where one token ends.
    text = Text()
    for i, token in enumerate(tokens):
        if plain and i:
            text.append("|")
        ground = "" if plain else f"black on {COLOURS[i % len(COLOURS)]}"
        text.append(_visible(token, in_text), style=ground)
    return text


def _visible(token: bytes, in_text: bool = False) -> str:
    r"""Write a token so that it can neither vanish nor command the terminal."""
    # Halves of characters and control characters are shown as escapes. In a text its
    # lines stay lines; in a row of tokens a space is a dot.
    special = {"\n": "\\n\n"} if in_text else {" ": "·"}

    def shown(character: str) -> str:
        if character in special:
            return special[character]
        if character.isprintable():
            return character
        return character.encode("unicode_escape").decode()

    return "".join(map(shown, token.decode("utf-8", "backslashreplace")))


def _load(path: Path) -> "BPETokenizer":
    from minillm.bpe import BPETokenizer

    return BPETokenizer.load(path / "tokenizer.json" if path.is_dir() else path)


def _parts(text: str | None, file: Path | None) -> Iterable[str]:
    from minillm.tokenizer.streams import read_text

    if text is not None and file is not None:
        raise ValueError("give the text or --file, not both")
    if text is not None:
        return [text]
    return _stdin() if file is None else read_text(file)


def _stdin() -> Iterator[str]:
    from minillm.tokenizer.streams import decode_blocks

    return decode_blocks(sys.stdin.buffer.read, "standard input")


def _id(word: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise ValueError(f"an id is an integer, not {word[:40]!r}") from None
