r"""The commands `minillm data clean` and `minillm data prepare`.

It brings [`minillm.corpus.clean`][] and [`minillm.corpus.prepare`][] to a terminal.
"""

from pathlib import Path
from typing import Annotated

import typer

from minillm.config import VOCAB_SIZE

__all__ = ["app", "clean", "prepare"]

app = typer.Typer(
    name="data", help="Make token files of your own text.", no_args_is_help=True
)


@app.callback()
def data() -> None:
    """Make token files of your own text."""


@app.command()
def prepare(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE",
            help="Texts in UTF-8, whose documents two blank lines divide; or files "
            "named .jsonl, with a JSON object in each line.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    vocab_size: Annotated[
        int, typer.Option(help="How many tokens a new vocabulary has.")
    ] = VOCAB_SIZE,
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="A tokenizer.json, or its folder, instead of a new one."),
    ] = None,
    field: Annotated[
        str, typer.Option(help="Where a JSON object has its text.")
    ] = "text",
    validation: Annotated[
        float,
        typer.Option(help="Share of the documents held out for validation."),
    ] = 0.1,
    workers: Annotated[
        int | None, typer.Option(help="How many processes work.")
    ] = None,
) -> None:
    """Turn files of any size into tokens. A part is held out for validation."""
    from minillm.bpe import BPETokenizer
    from minillm.corpus.prepare import prepare as prepare_files

    known = None
    if tokenizer is not None:
        is_folder = tokenizer.is_dir()
        known = BPETokenizer.load(
            tokenizer / "tokenizer.json" if is_folder else tokenizer
        )
    facts = prepare_files(
        files,
        out,
        vocab_size=vocab_size,
        tokenizer=known,
        field=field,
        validation=validation,
        workers=workers,
        say=print,
    )
    for part, n in facts["tokens"].items():
        print(
            f"{part}: {facts['documents'][part]:,} documents, {n:,} tokens of "
            f"{facts['bytes'][part] / n:.2f} bytes on average"
        )
    print(f"kept in {out}: train on it with minillm train --data {out}")


@app.command()
def clean(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE",
            help="Files named .warc, .warc.gz, .html or .jsonl; others are text.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    apart: Annotated[
        list[Path] | None,
        typer.Option(help="Test texts: what shares 13 words in a row is dropped."),
    ] = None,
    field: Annotated[
        str, typer.Option(help="Where a JSON object has its text.")
    ] = "text",
    workers: Annotated[
        int | None, typer.Option(help="How many processes work.")
    ] = None,
) -> None:
    """Extract, filter and deduplicate texts. What is dropped is listed, with a reason.

    To continue a run that was stopped, start it again.
    """
    from minillm.corpus.clean import Settings
    from minillm.corpus.clean import clean as clean_files

    report = clean_files(
        files,
        out,
        apart=apart or [],
        settings=Settings(field=field),
        workers=workers,
        say=print,
    )
    for reason, group in sorted(
        report["dropped"].items(), key=lambda item: -item[1]["count"]
    ):
        sample = group["samples"][0]["name"]
        print(f"dropped {group['count']:,}: {reason}, like {sample}")
    for note, count in sorted(report["encodings"].items()):
        print(f"{count:,} pages {note}")
    print(f"kept in {out}: minillm data prepare {out / 'texts.jsonl'} --out FOLDER")
