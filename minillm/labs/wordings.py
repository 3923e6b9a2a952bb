r"""One skill, asked for in many ways.

**The question.** A score belongs to a model *and a prompt*. The same sum can be put in
five ways, and three examples before it can stand in six orders. None of them is the
right one. How far does the score move, and is that much, beside what the choice of
questions moves it?

The questions are made by a seeded rule:

>>> question(0)
Sum(a=9, b=9)
>>> for wording in WORDINGS:
...     print(wording.format(a=9, b=9))
9 + 9 =
9 plus 9 is
Question: What is 9 + 9? Answer:
The sum of 9 and 9 is
If you add 9 to 9, you get

A model is right if it continues greedily with the result, and no further digit
([`says`][minillm.labs.wordings.says]).

`python -m minillm.labs.wordings MODEL` measures a run or any model that
[`minillm.hub`][] reads, in a minute for SmolLM2. **Told in**
[`minillm.evaluation`][].
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
from minillm.model import TransformerLM
from minillm.tokenizer.streams import check_lists

__all__ = [
    "ORDERS",
    "WORDINGS",
    "Sum",
    "committed_answers",
    "measure",
    "question",
    "says",
    "with_examples",
    "worded",
]

WORDINGS = (
    "{a} + {b} =",
    "{a} plus {b} is",
    "Question: What is {a} + {b}? Answer:",
    "The sum of {a} and {b} is",
    "If you add {b} to {a}, you get",
)
"""Five prompts for one sum."""
EXAMPLES = ((10, 1), (2, 10), (10, 10))
ORDERS = tuple(permutations(EXAMPLES))
"""The six orders of three solved sums that stand before the question."""
QUESTIONS = 40


class Sum(NamedTuple):
    """A question.

    Attributes:
        a: the first number, from 1 to 9.
        b: the second.
    """

    a: int
    b: int


def question(number: int) -> Sum:
    """Make a question, the same one for the same number.

    Args:
        number: which, from 0 to 80; no two are the same.

    Returns:
        The question.
    """
    order = torch.randperm(81, generator=torch.Generator().manual_seed(0))
    a, b = divmod(int(order[number]), 9)
    return Sum(a + 1, b + 1)


def worded(wording: str) -> Callable[[Sum], str]:
    """Put a question in some words.

    Args:
        wording: one of [`WORDINGS`][minillm.labs.wordings.WORDINGS].

    Returns:
        What makes the prompt.

    Examples:
        >>> worded("{a} and {b} are")(Sum(3, 4))
        '3 and 4 are'
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
        '1 + 2 = 3\n3 + 3 = 6\n9 + 9 ='
    """
    shown = "".join(f"{a} + {b} = {a + b}\n" for a, b in order)
    return lambda sum_: f"{shown}{sum_.a} + {sum_.b} ="


@torch.inference_mode()
def says(
    model: TransformerLM,
    tokenizer: BPETokenizer,
    prompts: Sequence[str],
    answers: Sequence[str],
) -> list[bool]:
    """Does a model, greedily, continue each prompt with its answer, and end it there?

    One pass is enough: as long as every token of the answer is the likeliest, what was
    read is what the model itself would have written.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        prompts: what comes before.
        answers: what should come, digits at its end.

    Returns:
        For each, whether it does and goes on with something other than a digit.

    Raises:
        ValueError: if a prompt ends within a token of the whole.
    """
    check_lists(prompts=prompts, answers=answers)
    heads = [[*tokenizer.begin_ids, *tokenizer.encode(prompt)] for prompt in prompts]
    wholes = [
        [*tokenizer.begin_ids, *tokenizer.encode(prompt + answer)]
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    ids = torch.zeros(len(wholes), max(map(len, wholes)), dtype=torch.long)
    for row, whole in zip(ids, wholes, strict=True):
        row[: len(whole)] = torch.tensor(whole)  # what stands after is never read
    right = []
    said = model(ids).argmax(-1).tolist()
    for prompt, head, whole, row in zip(prompts, heads, wholes, said, strict=True):
        if whole[: len(head)] != head:
            raise ValueError(f"{prompt!r:.40} ends within a token: end it with a word")
        *same, after = row[len(head) - 1 : len(whole)]
        ends = not tokenizer.decode([after])[:1].isdigit()
        right.append(same == whole[len(head) :] and ends)
    return right


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
    asked = [question(number) for number in range(n)]
    answers = [f" {each.a + each.b}" for each in asked]
    return [*map(int, says(model, tokenizer, [*map(prompt, asked)], answers))]


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
