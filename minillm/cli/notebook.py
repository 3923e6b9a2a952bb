r"""The command `minillm notebook`.

The course does not explain this module: [`minillm.cli.notebook_cells`][] makes the
notebook, and this writes it down.
"""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["notebook"]


def notebook(
    chapter: Annotated[
        str,
        typer.Argument(
            help="A chapter by name or number, like bpe or 1, any module, or all."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder to write into.")] = Path(),
) -> None:
    """Write a chapter as a notebook. It opens in Jupyter, VS Code and Colab."""
    from minillm.cli.chapter_parts import chapters, find
    from minillm.cli.notebook_cells import notebook as write
    from minillm.files.writing import atomic_write

    wanted = list(chapters().values()) if chapter == "all" else [chapter]
    for name in wanted:
        path = out / f"{find(name).__name__.rpartition('.')[2]}.ipynb"
        # Somebody may have worked in it.
        if path.exists() and chapter != "all":
            raise ValueError(
                f"{path} is there already; move it, or choose another --out"
            )
        if path.exists():
            print(f"{path} is there already, and stays")
            continue
        text = write(name)
        out.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(text.encode())
        print(path)
