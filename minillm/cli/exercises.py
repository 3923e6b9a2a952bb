r"""The commands `minillm exercises list`, `start` and `check`."""

import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from minillm.exercises.exercise import Exercise
    from minillm.exercises.report import Report
    from minillm.exercises.workbook import Progress

__all__ = ["app", "check", "list_exercises", "start"]

app = typer.Typer(
    help="Exercises that grade themselves and say why.", no_args_is_help=True
)
MARKS = {"passed": "done", "wrong": "wrong", "todo": "-"}


@app.command("list")
def list_exercises(
    folder: Annotated[
        Path, typer.Argument(help="A folder of yours, for what is done.")
    ] = Path(),
) -> None:
    """List the exercises and what is done of them."""
    from minillm.exercises import EXERCISES
    from minillm.exercises.exercise import CHAPTERS
    from minillm.exercises.workbook import Progress

    progress = Progress(folder)
    for chapter, title in CHAPTERS.items():
        print(title)
        for exercise in EXERCISES.values():
            if exercise.chapter == chapter:
                mark = MARKS[progress.status(exercise.name)]
                print(
                    f"  {exercise.name:<24} {exercise.minutes:>2} min  {mark:<5}  "
                    f"{exercise.title}"
                )
    print(_bar(progress))


@app.command()
def start(
    folder: Annotated[Path, typer.Argument(help="Where to write the files.")],
) -> None:
    """Write the files to work in. A file that is there is left alone."""
    from minillm.exercises.workbook import start as write

    written, kept = write(folder)
    for path in written:
        print(f"wrote  {path}")
    for path in kept:
        print(f"kept   {path}, which was there")
    print(f"Next: open {(written + kept)[0]}, then `minillm exercises check {folder}`.")


@app.command()
def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]... [DIR]",
            help="Exercises (bpe.merge) or chapters (bpe), and the folder.",
        ),
    ] = None,
    hint: Annotated[
        bool, typer.Option("--hint", help="Show a hint; again, and it is one more.")
    ] = False,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Show the course's own solution.")
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one record for each exercise and learner."),
    ] = False,
) -> None:
    """Grade your functions: what is wrong, and why.

    Without a name all exercises are graded, without DIR those in this folder. The exit
    code is 1 if an answer is wrong. With --json, DIR may hold many folders, one for
    each learner, and the exit code is 0.
    """
    chosen, folder, named = _arguments(names or [])
    if hint or reveal:
        if reveal:
            _reveal(_only(chosen))
        else:
            _hint(_only(chosen), folder)
        return
    from minillm.exercises.runner import grade_folder
    from minillm.exercises.workbook import Progress, workbook, workbooks

    if as_json:
        records = [
            {"learner": work.name if work != folder else "", **report.as_dict()}
            for work in workbooks(folder)
            for report in grade_folder(work, chosen)
        ]
        print(json.dumps(records, indent=2, ensure_ascii=False))
        return
    own = workbook(folder)
    progress = Progress(own)
    wrong = False
    for report in grade_folder(own, chosen):
        progress.note(report)
        _print(report, folder, show_todo=named)
        wrong |= report.status == "wrong"
    print(_bar(progress))
    _leave(int(wrong))


def _leave(code: int) -> None:
    raise typer.Exit(code)


def _only(chosen: list["Exercise"]) -> "Exercise":
    """The one exercise whose hints are asked for."""
    if len(chosen) != 1:
        raise ValueError("name one exercise, like bpe.merge, to see its hints")
    return chosen[0]


def _arguments(words: list[str]) -> tuple[list["Exercise"], Path, bool]:
    """Tell names from the folder, which may come first or last."""
    from minillm.exercises import EXERCISES, find_exercises
    from minillm.exercises.exercise import CHAPTERS

    names = [word for word in words if word in EXERCISES or word in CHAPTERS]
    others = [word for word in words if word not in names]
    folders = [word for word in others if Path(word).is_dir()]
    for word in others:
        if word not in folders:
            if len(Path(word).parts) > 1:
                raise ValueError(f"no folder {word}")
            find_exercises([word])  # raises, with the nearest names
    if len(folders) > 1:
        raise ValueError(f"one folder at a time; got {' and '.join(folders)}")
    folder = Path(folders[0]) if folders else Path()
    return find_exercises(names), folder, bool(names)


def _print(report: "Report", folder: Path, show_todo: bool) -> None:
    if report.status == "todo" and not show_todo:
        return
    words = {"passed": f"passed, {report.inputs} inputs", "todo": "not yet written"}
    if report.inputs == 1 and report.passed:
        words["passed"] = "passed"
    line = f"{report.name:<24} {words.get(report.status) or report.headline}"
    print(textwrap.fill(line, 80, subsequent_indent=" " * 25))
    if report.status == "wrong":
        for line in report.details():
            print(f"  {line}")
        where = "" if folder == Path() else f" {folder}"
        print(f"    hint?      minillm exercises check {report.name}{where} --hint")


def _bar(progress: "Progress") -> str:
    from minillm.exercises import EXERCISES

    done = sum(progress.status(name) == "passed" for name in EXERCISES)
    filled = 40 * done // len(EXERCISES)
    return f"[{'#' * filled}{'.' * (40 - filled)}] {done} of {len(EXERCISES)} done"


def _hint(exercise: "Exercise", folder: Path) -> None:
    from minillm.exercises.workbook import Progress, place, workbook

    hints = Progress(workbook(folder)).next_hint(exercise)
    print(f"{exercise.name}: {exercise.title}")
    for number, text in enumerate(hints, 1):
        print(f"  {number}. {text}")
    if len(hints) < len(exercise.hints):
        print("The same command again gives the next one.")
    else:
        module, first, last = place(exercise.answer[0])
        # What stands among the exercises is the solution, not a place to read.
        if not module.startswith("minillm.exercises"):
            print(f"Read: {module.replace('.', '/')}.py, lines {first} to {last}.")
        print("The solution is behind --reveal.")


def _reveal(exercise: "Exercise") -> None:
    from rich.console import Console
    from rich.syntax import Syntax

    from minillm.exercises.workbook import solution

    Console().print(
        Syntax(solution(exercise), "python", background_color="default", word_wrap=True)
    )
