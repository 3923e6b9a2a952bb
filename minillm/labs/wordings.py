r"""One skill, asked for in many ways.

**The question.** A score belongs to a model *and a prompt*. The same sum can be put in
five ways, and three examples before it can stand in six orders. None of them is the
right one. How far does the score move, and is that much, beside what the choice of
questions moves it?

The questions are made by a seeded rule, a sum and four possible results:

>>> question(0)
Sum(a=76, b=9, choices=(85, 84, 86, 95))
>>> for wording in WORDINGS:
...     print(wording.format(a=76, b=9))
76 + 9 =
76 plus 9 is
Question: What is 76 + 9? Answer:
The sum of 76 and 9 is
If you add 9 to 76, you get

A model is right if it finds the right result the most likely of the four
([`score_choices`][minillm.inference.choices.score_choices]).

`python -m minillm.labs.wordings MODEL` measures a run or any model that
[`minillm.hub`][] reads, some minutes for SmolLM2. **Told in** [`minillm.evaluation`][].
"""

import argparse
import json
from collections.abc import Callable, Sequence
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import torch

from minillm.bpe import BPETokenizer
from minillm.files.opening import open_model
from minillm.files.reading import IMAGES
from minillm.files.writing import atomic_write
from minillm.inference.choices import score_choices
from minillm.model import TransformerLM

__all__ = ["ORDERS", "WORDINGS", "Sum", "committed_answers", "measure", "question"]

WORDINGS = (
    "{a} + {b} =",
    "{a} plus {b} is",
    "Question: What is {a} + {b}? Answer:",
    "The sum of {a} and {b} is",
    "If you add {b} to {a}, you get",
)
"""Five prompts for one sum."""
EXAMPLES = ((12, 5), (38, 4), (26, 8))
ORDERS = tuple(permutations(EXAMPLES))
"""The six orders of three solved sums that stand before the question."""
QUESTIONS = 40


class Sum(NamedTuple):
    """A question.

    Attributes:
        a: the first number.
        b: the second.
        choices: four results, the first of them right.
    """

    a: int
    b: int
    choices: tuple[int, int, int, int]


def question(number: int) -> Sum:
    """Make a question, the same one for the same number.

    Args:
        number: which.

    Returns:
        The question.
    """
    random = torch.Generator().manual_seed(number)
    a = int(torch.randint(11, 80, (1,), generator=random))
    b = int(torch.randint(2, 10, (1,), generator=random))
    return Sum(a, b, (a + b, a + b - 1, a + b + 1, a + b + 10))


def worded(wording: str) -> Callable[[Sum], str]:
    """Put a question in some words.

    Args:
        wording: one of [`WORDINGS`][minillm.labs.wordings.WORDINGS].

    Returns:
        What makes the prompt.
    """
    return lambda sum_: wording.format(a=sum_.a, b=sum_.b)


def with_examples(order: Sequence[tuple[int, int]]) -> Callable[[Sum], str]:
    r"""Put solved sums before a question.

    Args:
        order: the sums.

    Returns:
        What makes the prompt.

    Examples:
        >>> with_examples([(1, 2), (3, 3)])(question(0))
        '1 + 2 = 3\n3 + 3 = 6\n76 + 9 ='
    """
    shown = "".join(f"{a} + {b} = {a + b}\n" for a, b in order)
    return lambda sum_: f"{shown}{sum_.a} + {sum_.b} ="


def measure(
    model: TransformerLM,
    tokenizer: BPETokenizer,
    prompt: Callable[[Sum], str],
    n: int = QUESTIONS,
) -> list[int]:
    """Ask all questions in one way.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        prompt: makes a prompt of a question.
        n: how many questions.

    Returns:
        1 for each right answer, 0 for each wrong one.
    """
    right = []
    for number in range(n):
        asked = question(number)
        choices = [f" {choice}" for choice in asked.choices]
        scores = score_choices(
            model, tokenizer, prompt(asked), choices, begin_ids=tokenizer.begin_ids
        )
        right.append(int(scores.best() == 0))
    return right


def committed_answers(name: str) -> dict[str, list[list[int]]]:
    """Read what was measured.

    Args:
        name: the name of the model's file.

    Returns:
        `wordings` and `orders`: (ways of asking, questions), 1 where it was right.
    """
    path = IMAGES / "data" / "lab-wordings.json"
    found: dict[str, dict[str, list[list[int]]]]
    found = json.loads(path.read_text(encoding="utf-8"))
    return found[name]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Ask one skill in many ways.")
    parser.add_argument("model", type=Path, help="a folder or a GGUF file")
    parser.add_argument("--out", type=Path, help="a JSON file, replaced")
    given = parser.parse_args()
    opened, its_tokenizer, _ = open_model(given.model)
    ways = {
        "wordings": [worded(wording) for wording in WORDINGS],
        "orders": [with_examples(order) for order in ORDERS],
    }
    answers: dict[str, list[list[int]]] = {}
    for kind, prompts in ways.items():
        answers[kind] = []
        for number, prompt in enumerate(prompts):
            answers[kind].append(measure(opened, its_tokenizer, prompt))
            share = sum(answers[kind][-1]) / QUESTIONS
            print(f"{kind} {number}: {share:.2f}", flush=True)
    if given.out:
        with atomic_write(given.out) as file:
            file.write((json.dumps({given.model.stem: answers}) + "\n").encode())
