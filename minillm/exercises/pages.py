r"""The pages of the site about exercises, written from what the exercises are made of.

`make pages` runs this module, and a test compares.
"""

import textwrap
from pathlib import Path

from minillm.exercises import EXERCISES
from minillm.exercises.exercise import CHAPTERS, Exercise
from minillm.files.writing import atomic_write

__all__ = ["chapter_page", "write_pages"]


def chapter_page(chapter: str) -> str:
    """Write the page with the exercises of a chapter.

    Args:
        chapter: its name.

    Returns:
        Markdown.
    """
    exercises = [e for e in EXERCISES.values() if e.chapter == chapter]
    minutes = sum(exercise.minutes for exercise in exercises)
    head = f"""\
# Exercises: {CHAPTERS[chapter].lower()}

{len(exercises)} exercises, about {minutes} minutes. `minillm exercises start DIR`
writes the file `{chapter}.py` with all of them; [how it works](../exercises.md).
"""
    return "\n".join([head, *(_section(exercise) for exercise in exercises)])


def _section(exercise: Exercise) -> str:
    stub = exercise.stub
    first, last = stub.lines
    statement = stub.docstring.partition(">>>")[0].strip()
    answer = exercise.answer[0]
    path = f"{answer.__module__}.{answer.__qualname__}"
    read = "" if path.startswith("minillm.exercises") else f" Read [`{path}`][{path}]."
    hints = "\n\n".join(
        f'??? question "Hint {number}"\n\n' + textwrap.indent(hint, "    ")
        for number, hint in enumerate(exercise.hints, 1)
    )
    return f"""\
## {exercise.title} {{ #{exercise.name} }}

`{exercise.name}`, about {exercise.minutes} minutes.{read}

{statement}

*Why.* {exercise.why}

```python
--8<-- "minillm/exercises/stubs/{exercise.chapter}.py:{first}:{last}"
```

Check it:

```sh
minillm exercises check {exercise.name} DIR
```

{hints}
"""


def write_pages(folder: Path) -> None:
    """Write a page for each chapter that has exercises.

    Args:
        folder: where, usually `docs/exercises`.
    """
    folder.mkdir(exist_ok=True)
    for chapter in CHAPTERS:
        with atomic_write(folder / f"{chapter}.md") as file:
            file.write(chapter_page(chapter).encode())


if __name__ == "__main__":
    write_pages(Path("docs/exercises"))
