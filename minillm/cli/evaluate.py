r"""The command `minillm evaluate`: ask a model the questions of a file.

The course does not explain this module: it hands the arguments to
[`minillm.inference.tasks`][].
"""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["evaluate"]


def evaluate(
    source: Annotated[
        str,
        typer.Argument(
            help="A run, any Llama folder, a GGUF file, or a name on the hub."
        ),
    ],
    task: Annotated[
        Path,
        typer.Argument(
            help="A file of JSON lines: prompt, choices, answer (an index)."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The file of answers; what it has is not asked again."),
    ] = None,
    without: Annotated[
        str | None,
        typer.Option(help="A neutral prompt, to take off what a choice has without."),
    ] = None,
) -> None:
    """Ask a model the questions of TASK.

    How good is it, and how sure is that?
    """
    from minillm.evaluation import chance_corrected
    from minillm.files.opening import open_model
    from minillm.inference.tasks import answer_questions, read_questions, summary

    questions = read_questions(task)
    model, tokenizer, _ = open_model(source)
    if out is None:
        out = Path("runs/evaluations") / f"{Path(source).name}-{task.stem}.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    answered = list(
        answer_questions(
            model,
            tokenizer,
            questions,
            out,
            without=without,
            begin_ids=tokenizer.begin_ids,
        )
    )
    chance = sum(1 / len(q.choices) for q in questions) / len(questions)
    print(f"{len(questions)} questions; guessing has {chance:.3f}")
    same = {len(question.choices) for question in questions}
    for by, share, low, high in summary(answered):
        corrected = ""
        if len(same) == 1:
            corrected = f"; above chance {chance_corrected(share, *same):.3f}"
        print(f"by {by:<6} {share:.3f} ({low:.3f} to {high:.3f}){corrected}")
    print(f"each answer in {out}; to continue a run that was stopped, start it again")
