r"""The command `minillm lecture`.

The course does not explain this module: it puts [`minillm.cli.lecture_show`][] on a
terminal.
"""

from typing import Annotated

import typer

__all__ = ["lecture"]


def lecture(
    chapter: Annotated[
        str,
        typer.Argument(
            help="A chapter by name or number, like bpe or 1, or any module."
        ),
    ] = "",
    everything: Annotated[
        bool, typer.Option("--all", help="Run it through without stopping.")
    ] = False,
) -> None:
    """Give a chapter as a lecture. Enter runs the next example."""
    from rich.console import Console

    from minillm.cli.chapter_parts import Run, chapters
    from minillm.cli.lecture_show import Lecture

    console = Console()
    if not chapter:
        for number, name in chapters().items():
            console.print(f"{number:2}  {name}", highlight=False)
        return
    given = Lecture(chapter, console)
    if not everything:
        given.speak()
    elif wrong := given.all():
        raise ValueError(f"{wrong} examples printed something else than they should")
    else:
        count = sum(isinstance(s, Run) for p in given.slides for s in p.steps)
        console.print(f"{len(given.slides)} slides, {count} examples, each as expected")
