r"""Questions whose answers a program can check.

**The question.** A reward has to be computed for hundreds of thousands of answers. A
person cannot; a second model could, and would be wrong sometimes. Is there anything
that a machine can check without doubt?

Plenty: sums, proofs, programs with tests. Here are tasks that a model of a hundred
thousand weights learns in a minute, each a short text. The prompt ends with a colon,
the answer with a full stop, and the answer is worth 1 or 0.

*sort*: six digits; the answer has the same digits in order. There is one right answer,
and one rule for all problems:

>>> TASKS["sort"].right("593214:", "123459."), TASKS["sort"].right("593214:", "12345.")
(True, False)

*split*: a number, and two digits that are forbidden; the answer is a list of digits
from 1 to 9 that add up to the number. A problem has many right answers, and they have
little to do with those of the next:

>>> [TASKS["split"].right("31-47:", answer) for answer in ("9859.", "99913.", "9967.")]
[True, True, False]

Sorting has a rule and one right answer, splitting has many right answers and hardly a
rule: they differ in two respects. Of two more tasks, one has a rule and many right
answers, the other neither.

*parity*: six digits; the answer has the same digits, the even ones first, in any order.
One rule for all problems, and up to 36 right answers to each:

>>> [TASKS["parity"].right("593214:", answer) for answer in ("243951.", "425193.")]
[True, True]

*table*: a number from 000 to 999; the answer is a digit, chosen at random for each
number once and for all. One right answer, and no rule: a thousand separate facts.

>>> [TASKS["table"].solve(f"{n:03d}:", torch.Generator()) for n in range(4)]
['5.', '2.', '1.', '6.']

**A verifier is a program, and has the mistakes of programs.** The two below check less
than they should. What a model makes of that is told in [`minillm.posttraining`][].

>>> [reward(name, "sort", "593214:", "7.") for name in ("in order", "exact")]
[1.0, 0.0]
>>> reward("each position", "sort", "593214:", "123.")
0.42857142857142855

**Used by** [`minillm.labs.posttraining`][].
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

__all__ = [
    "END",
    "SIGNS",
    "TASKS",
    "Task",
    "decode",
    "draw_problems",
    "encode",
    "held_out",
    "pack",
    "reward",
]

SIGNS = "0123456789:-."
"""The characters; the id of each is its index."""
END = SIGNS.index(".")
"""The id that ends an answer."""
Chance = torch.Generator


class Task(NamedTuple):
    """What there is to do.

    Attributes:
        prompt: how many characters a prompt has.
        answer: how many an answer has at most, the full stop included.
        held_out: how many problems are kept for the evaluation.
        problem: makes one problem.
        solve: finds a right answer, one of many if there are many.
        right: whether an answer is right.
    """

    prompt: int
    answer: int
    held_out: int
    problem: Callable[[Chance], str]
    solve: Callable[[str, Chance], str]
    right: Callable[[str, str], bool]


def _below(n: int, chance: Chance) -> int:
    return int(torch.randint(n, (1,), generator=chance))


def _sorted(problem: str) -> str:
    return "".join(sorted(problem[:-1])) + "."


def _parts(problem: str) -> tuple[int, str]:
    number, forbidden = problem[:-1].split("-")
    return int(number), forbidden


def _new_split(chance: Chance) -> str:
    a, b = sorted((torch.randperm(9, generator=chance)[:2] + 1).tolist())
    return f"{10 + _below(21, chance)}-{a}{b}:"


def _split(problem: str, chance: Chance) -> str:
    number, forbidden = _parts(problem)
    while True:  # digit by digit; from the start again if that leads nowhere
        left, digits = number, ""
        while left and len(digits) < TASKS["split"].answer - 1:
            fit = [d for d in range(1, min(left, 9) + 1) if str(d) not in forbidden]
            if not fit:
                break
            digits += str(digit := fit[_below(len(fit), chance)])
            left -= digit
        if not left:
            return digits + "."


def _is_split(problem: str, answer: str) -> bool:
    number, forbidden = _parts(problem)
    digits = answer[:-1]
    return (
        answer.endswith(".")
        and digits.isdigit()
        and sum(map(int, digits)) == number
        and set(digits).isdisjoint({"0", *forbidden})
    )


def _by_parity(problem: str, chance: Chance) -> str:
    digits = [problem[i] for i in torch.randperm(6, generator=chance)]
    return "".join(sorted(digits, key=lambda digit: int(digit) % 2)) + "."


def _is_by_parity(problem: str, answer: str) -> bool:
    odd = [int(digit) % 2 for digit in answer[:-1] if digit.isdigit()]
    same = sorted(answer[:-1]) == sorted(problem[:-1])
    return answer.endswith(".") and same and odd == sorted(odd)


@cache
def _table() -> list[int]:
    return torch.randint(10, (1000,), generator=Chance().manual_seed(7)).tolist()


def _looked_up(problem: str) -> str:
    return f"{_table()[int(problem[:-1])]}."


def _one_answer(digits: int, answer: int, solve: Callable[[str], str]) -> Task:
    """A number of so many digits, and the only right answer to it."""
    return Task(
        prompt=digits + 1,
        answer=answer,
        held_out=300,
        problem=lambda chance: f"{_below(10**digits, chance):0{digits}d}:",
        solve=lambda problem, chance: solve(problem),
        right=lambda problem, answer: answer == solve(problem),
    )


_SORT = _one_answer(6, 7, _sorted)
TASKS = {
    "sort": _SORT,
    "split": Task(
        prompt=6,
        answer=9,
        held_out=151,
        problem=_new_split,
        solve=_split,
        right=_is_split,
    ),
    "parity": _SORT._replace(solve=_by_parity, right=_is_by_parity),
    "table": _one_answer(3, 2, _looked_up),
}
"""The tasks by name."""


@cache
def held_out(task: str) -> tuple[str, ...]:
    """List the problems of a task that no training sees.

    Args:
        task: its name.

    Returns:
        The problems, the same ones for every model.

    Examples:
        >>> len(held_out("split")), len(set(held_out("split")))
        (151, 151)
    """
    chance, found = torch.Generator().manual_seed(2**31), dict[str, None]()
    while len(found) < TASKS[task].held_out:
        found[TASKS[task].problem(chance)] = None
    return tuple(found)


def draw_problems(task: str, n: int, chance: torch.Generator) -> list[str]:
    """Make problems for training.

    Args:
        task: the name of the task.
        n: how many; the same may occur twice.
        chance: the random number generator.

    Returns:
        The problems.

    Examples:
        >>> made = draw_problems("split", 2000, torch.Generator().manual_seed(0))
        >>> len(made), set(made).isdisjoint(held_out("split"))
        (2000, True)
    """
    kept, found = set(held_out(task)), list[str]()
    while len(found) < n:
        if (problem := TASKS[task].problem(chance)) not in kept:
            found.append(problem)
    return found


def reward(name: str, task: str, problem: str, answer: str) -> float:
    """Score an answer.

    Args:
        name: `exact`: 1 if it is right. `in order`: 1 if its digits are in order,
            whichever they are. `each position`: the share of characters that are those
            of the sorted problem.
        task: the name of the task; the last two are for `sort`.
        problem: the problem.
        answer: what the model wrote.

    Returns:
        A number from 0 to 1.

    Raises:
        ValueError: if there is no such reward.
    """
    if name == "exact":
        return float(TASKS[task].right(problem, answer))
    digits, wanted = answer[:-1], _sorted(problem)
    if name == "in order":
        whole = answer.endswith(".") and digits.isdigit()
        return float(whole and digits == "".join(sorted(digits)))
    if name == "each position":
        # An answer that is too short has nothing to compare with the rest.
        right = sum(a == b for a, b in zip(answer, wanted, strict=False))
        return right / len(wanted)
    raise ValueError(f"no reward {name!r}: exact, in order or each position")


def encode(text: str) -> list[int]:
    """Turn a text into ids, one for each character.

    Args:
        text: of the characters in [`SIGNS`][minillm.labs.answers.SIGNS].

    Returns:
        The ids.

    Examples:
        >>> decode(encode("593214:"))
        '593214:'
    """
    return [SIGNS.index(sign) for sign in text]


def decode(ids: Sequence[int]) -> str:
    """Turn ids into text.

    Args:
        ids: the ids.

    Returns:
        The text.
    """
    return "".join(SIGNS[i] for i in ids)


def pack(
    task: str, pairs: Sequence[tuple[str, str]], learn: str = "answer"
) -> tuple[Int[Tensor, "n seq"], Bool[Tensor, "n seq"]]:
    r"""Write problems and answers side by side, and mark what is learned.

    Args:
        task: the name of the task.
        pairs: problems and their answers.
        learn: `answer`, its full stop included; `all` for the problem, too; `unended`
            for the answer without its full stop.

    Returns:
        The ids, padded at the end, and the mask: True on the tokens that are learned.

    Raises:
        ValueError: if `learn` is none of the three.

    Examples:
        >>> ids, mask = pack("split", [("12-34:", "57."), ("10-34:", "55.")])
        >>> mask[0].tolist().index(True), mask.sum(1).tolist()
        (6, [3, 3])
    """
    begin_end = {"answer": (None, 0), "all": (0, 0), "unended": (None, 1)}
    if learn not in begin_end:
        raise ValueError(f"learn is one of {', '.join(begin_end)}; got {learn!r}")
    begin, without = begin_end[learn]
    width = TASKS[task].prompt + TASKS[task].answer
    ids = torch.full((len(pairs), width), END)
    ends = torch.tensor([len(p) + len(a) for p, a in pairs])[:, None]
    begins = torch.tensor([len(p) if begin is None else begin for p, _ in pairs])
    for row, (problem, answer) in zip(ids, pairs, strict=True):
        row[: len(problem) + len(answer)] = torch.tensor(encode(problem + answer))
    place = torch.arange(width)
    return ids, (place >= begins[:, None]) & (place < ends - without)
