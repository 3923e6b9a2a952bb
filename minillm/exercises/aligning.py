r"""Exercises to [`minillm.posttraining`][]."""

import re
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor

from minillm import posttraining
from minillm.exercises.exercise import FLOATS, Draw, Exercise, Mistake, tensors

__all__ = ["EXERCISES"]

sizes = st.integers(1, 3)


def _answer_mask(
    prompt: int, answer: int, width: int, *, late: int = 0, end: int = 0
) -> Tensor:
    place = torch.arange(1, width)
    return (place >= prompt + late) & (place < prompt + answer + end)


@st.composite
def _mask_inputs(draw: Draw) -> tuple[int, int, int]:
    prompt, answer = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    return prompt, answer, prompt + answer + draw(st.integers(0, 3))


@st.composite
def _masks(draw: Draw, batch: int, seq: int) -> Tensor:
    bits = draw(st.lists(st.booleans(), min_size=batch * seq, max_size=batch * seq))
    mask = torch.tensor(bits).reshape(batch, seq)
    mask[0, -1] = True
    return mask


@st.composite
def _sft_inputs(draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
    batch, seq, vocab = draw(sizes), draw(sizes), draw(st.integers(2, 3))
    logits = draw(tensors(batch, seq, vocab, dtype=FLOATS))
    targets = draw(tensors(batch, seq, values=range(vocab), dtype=torch.long))
    return logits, targets, draw(_masks(batch, seq))


def _nats(logits: Tensor, targets: Tensor) -> Tensor:
    return -logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]


@st.composite
def _scored(draw: Draw) -> tuple[Tensor, Tensor]:
    batch, seq, vocab = draw(sizes), draw(st.integers(2, 4)), draw(st.integers(2, 3))
    logits = draw(tensors(batch, seq, vocab, dtype=FLOATS))
    return logits, draw(tensors(batch, seq, values=range(vocab), dtype=torch.long))


def _log_probs(logits: Tensor, ids: Tensor) -> Tensor:
    # The course's own takes a model; here what it said is given.
    return -_nats(logits[:, :-1], ids[:, 1:])


def _standard(rewards: Tensor, axis: int | None = 1, ddof: int = 1) -> Tensor:
    mean = rewards.mean() if axis is None else rewards.mean(axis, keepdim=True)
    rest = rewards - mean
    if axis is None:
        return rest / (rewards.std() + 1e-6)
    return rest / (rewards.std(axis, correction=ddof, keepdim=True) + 1e-6)


@st.composite
def _policy_inputs(draw: Draw) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, seq, kind = draw(sizes), draw(sizes), torch.float64
    steps = (0.0, -0.5, 0.5, 0.1, -0.1)
    new, old = (draw(tensors(batch, seq, values=steps, dtype=kind)) for _ in range(2))
    advantages = draw(tensors(batch, values=(1.0, -1.0, 2.0), dtype=kind))
    return new, old, advantages, draw(_masks(batch, seq))


def _policy(
    new: Tensor,
    old: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    inverted: bool = False,
    choose: Any = torch.minimum,
    everywhere: bool = False,
) -> Tensor:
    ratio = (old - new if inverted else new - old).exp()
    gain = ratio * advantages[:, None]
    gain = choose(gain, ratio.clamp(0.8, 1.2) * advantages[:, None])
    return -(gain * mask).mean() if everywhere else -gain[mask].mean()


def _penalized(
    log_probs: Tensor,
    ref_log_probs: Tensor,
    rewards: Tensor,
    beta: float,
    *,
    detach: bool = True,
    sign: int = 1,
    center: bool = True,
) -> Tensor:
    earned = rewards - sign * beta * (log_probs - ref_log_probs)
    advantages = earned - earned.mean() * center
    return -((advantages.detach() if detach else advantages) * log_probs).mean()


def _gradient(function: Any, log_probs: Tensor, *rest: Any) -> Tensor:
    lp = log_probs.clone().requires_grad_()
    loss = function(lp, *rest)
    if not isinstance(loss, Tensor) or loss.ndim:
        raise TypeError("the loss is a tensor without axes")
    (gradient,) = torch.autograd.grad(loss, lp)
    return gradient


@st.composite
def _penalized_inputs(draw: Draw) -> tuple[Tensor, Tensor, Tensor, float]:
    n, kind = draw(st.integers(2, 4)), torch.float64
    new, ref, rewards = (draw(tensors(n, dtype=kind)) for _ in range(3))
    return new, ref, rewards, draw(st.sampled_from([0.5, 0.25, 1.0]))


@st.composite
def _pairs(draw: Draw) -> tuple[Any, ...]:
    n, kind = draw(sizes), torch.float64
    values = (0.0, -1.0, -2.0, -5.0, -1000.0)
    sides = (draw(tensors(n, values=values, dtype=kind)) for _ in range(4))
    return *sides, draw(st.sampled_from([0.5, 0.1, 2.0]))


def _margin(w: Tensor, lost: Tensor, rw: Tensor, rl: Tensor) -> Tensor:
    return (w - rw) - (lost - rl)


def _verify(
    prompt: str, text: str, answer: int, *, cut: bool = True, which: int = -1
) -> float:
    numbers = re.findall(r"[0-9]+", text[len(prompt) :] if cut else text)
    return float(bool(numbers) and int(numbers[which]) == answer)


@st.composite
def _claims(draw: Draw) -> tuple[str, str, int]:
    numbers = st.sampled_from(["4", "14", "41", "7"])
    prompt = f"{draw(numbers)} or "
    words = st.lists(st.one_of(numbers, st.just("no")), max_size=3)
    return prompt, prompt + " ".join(draw(words)), draw(st.sampled_from([4, 7]))


_ONE = torch.ones(1, dtype=torch.float64)

EXERCISES = (
    Exercise(
        name="posttraining.answer_mask",
        title="What is learned",
        minutes=10,
        why="Off by one, the model learns the last word of the question, or never to "
        "stop. The loss falls either way.",
        answer=(_answer_mask,),
        reference=_answer_mask,
        inputs=_mask_inputs(),
        examples=((2, 2, 6), (1, 1, 2)),
        mistakes=(
            Mistake(
                "off by one",
                "Target t is token t + 1, so the first token of the answer is target "
                "prompt - 1.",
                lambda *args: _answer_mask(*args, late=1, end=1),
            ),
            Mistake(
                "one too late",
                "The first token of the answer is missing: it is target prompt - 1.",
                lambda *args: _answer_mask(*args, late=1),
            ),
            Mistake(
                "without the end",
                "The last token of the answer ends it. Unless that is learned, the "
                "model never stops.",
                lambda *args: _answer_mask(*args, end=-1),
            ),
            Mistake(
                "learns the padding",
                "After the answer there is padding; nobody should learn to write that.",
                lambda prompt, answer, width: torch.arange(1, width) >= prompt,
            ),
            Mistake(
                "learns the question",
                "The question is given. Only the answer is learned.",
                lambda prompt, answer, width: torch.arange(1, width) < prompt + answer,
            ),
        ),
        hints=(
            "Write the tokens in a row, and below each target the token that it is.",
            "Target t is token t + 1; the answer is tokens prompt to prompt + answer - "
            "1.",
            "place = torch.arange(1, width), and two comparisons.",
        ),
    ),
    Exercise(
        name="posttraining.sft_loss",
        title="Loss on the answer",
        minutes=10,
        why="Divided by the wrong number, the loss depends on how much padding a batch "
        "happens to have.",
        answer=(posttraining.sft_loss,),
        reference=posttraining.sft_loss,
        forbidden=frozenset({"cross_entropy"}),
        inputs=_sft_inputs(),
        examples=(
            (
                torch.tensor([[[0.0, 2.0], [1.0, 0.0]], [[0.0, 1.0], [3.0, 0.0]]]),
                torch.tensor([[0, 1], [1, 1]]),
                torch.tensor([[True, False], [True, True]]),
            ),
        ),
        mistakes=(
            Mistake(
                "the mean over all positions",
                "What is not learned adds nothing above the line, so it must not count "
                "below: divide by mask.sum().",
                lambda x, y, m: (_nats(x, y) * m).mean(),
            ),
            Mistake(
                "a mean of means",
                "Each learned token weighs the same, in whichever sequence it stands.",
                lambda x, y, m: (
                    (_nats(x, y) * m).sum(1) / m.sum(1).clamp_min(1)
                ).mean(),
            ),
            Mistake(
                "the mask is not used",
                "Questions and padding are not learned.",
                lambda x, y, m: _nats(x, y).mean(),
            ),
            Mistake(
                "the sum",
                "A mean is asked for: a batch of long answers is no larger step.",
                lambda x, y, m: (_nats(x, y) * m).sum(),
            ),
        ),
        hints=(
            "First the nats of every target, (batch, seq).",
            "logits.log_softmax(-1).gather(-1, targets[..., None])",
            "Index with the mask, then the mean.",
        ),
    ),
    Exercise(
        name="posttraining.log_probs",
        title="The tokens that were written",
        minutes=10,
        why="Scored against the wrong token, every ratio is still near one, and the "
        "reward does not rise; it is the most common bug of home-made RL.",
        answer=(posttraining.log_probs, _log_probs),
        reference=_log_probs,
        inputs=_scored(),
        examples=(
            (
                torch.tensor([[[0.0, 2.0], [1.0, 0.0], [0.0, 0.0]]]),
                torch.tensor([[0, 1, 1]]),
            ),
        ),
        mistakes=(
            Mistake(
                "of the wrong token",
                "Entry t is about the token that comes after t: logits[:, :-1] and "
                "ids[:, 1:].",
                lambda x, ids: -_nats(x[:, 1:], ids[:, 1:]),
            ),
            Mistake(
                "of the token that is read",
                "Token t is given when entry t is computed; what it predicts is the "
                "next.",
                lambda x, ids: -_nats(x[:, :-1], ids[:, :-1]),
            ),
            Mistake(
                "not normalized",
                "A logit is a log-probability up to a constant: log_softmax.",
                lambda x, ids: x[:, :-1].gather(-1, ids[:, 1:, None])[..., 0],
            ),
            Mistake(
                "probabilities",
                "Logarithms are asked for: they add up along a sequence.",
                lambda x, ids: (-_nats(x[:, :-1], ids[:, 1:])).exp(),
            ),
            Mistake(
                "the wrong sign",
                "A log-probability is zero at most; its negative is the loss.",
                lambda x, ids: _nats(x[:, :-1], ids[:, 1:]),
            ),
        ),
        hints=(
            "The first token follows nothing, and after the last nothing is asked.",
            "logits[:, :-1].log_softmax(-1) for the tokens ids[:, 1:].",
            "gather(-1, ids[:, 1:, None]), and take the last axis away again.",
        ),
    ),
    Exercise(
        name="posttraining.advantages",
        title="Better than the others",
        minutes=10,
        why="This line replaces the second network that PPO needs.",
        answer=(posttraining.group_advantages,),
        reference=posttraining.group_advantages,
        # What is added to the deviation, if anything, is not asked.
        tolerance=1e-3,
        inputs=st.tuples(
            tensors(
                sizes,
                st.integers(2, 4),
                values=(0.0, 1.0, 3.0),
                dtype=torch.float64,
            )
        ),
        examples=(
            (torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 3.0]]).double(),),
            (torch.zeros(2, 2).double(),),
        ),
        mistakes=(
            Mistake(
                "the mean over the wrong axis",
                "Answers are compared with others to the same prompt: along a row.",
                lambda r: torch.nan_to_num(_standard(r, 0), 0.0),
            ),
            Mistake(
                "the mean of everything",
                "An easy prompt would then make all its answers look good.",
                lambda r: _standard(r, None),
            ),
            Mistake(
                "divided by n",
                "With n - 1, as torch.std does it unless told otherwise.",
                lambda r: _standard(r, ddof=0),
            ),
            Mistake(
                "nothing by nothing",
                "Where all rewards are equal, the deviation is 0, and the quotient is "
                "not a number: zeros are asked for.",
                lambda r: (r - r.mean(1, keepdim=True)) / r.std(1, keepdim=True),
            ),
            Mistake(
                "not divided",
                "The rest is divided by the standard deviation.",
                lambda r: posttraining.group_advantages(r, scale=False),
            ),
        ),
        hints=(
            "rewards.mean(1, keepdim=True) keeps the axis, so it can be taken off.",
            "The same with std.",
            "Add a millionth to the deviation: nothing by a millionth is nothing.",
        ),
    ),
    Exercise(
        name="posttraining.policy_loss",
        title="Once is enough",
        minutes=20,
        why="Every one of its mistakes still trains something.",
        answer=(posttraining.policy_loss,),
        reference=posttraining.policy_loss,
        inputs=_policy_inputs(),
        examples=(
            (_ONE[None] / 2, _ONE[None] * 0, _ONE, _ONE[None] > 0),
            (_ONE[None] / 2, _ONE[None] * 0, -_ONE, _ONE[None] > 0),
        ),
        mistakes=(
            Mistake(
                "ratio inverted",
                "New over old: it grows when the model makes the token more likely.",
                lambda *args: _policy(*args, inverted=True),
            ),
            Mistake(
                "the better of the two",
                "The *smaller* of the two gains: clipping may only take away.",
                lambda *args: _policy(*args, choose=torch.maximum),
            ),
            Mistake(
                "only the clipped one",
                "A bad token that has become much more likely must still be pushed "
                "down: min(unclipped, clipped).",
                lambda *args: _policy(*args, choose=lambda a, b: b),
            ),
            Mistake(
                "uphill",
                "A loss is made small: the gain with a minus.",
                lambda *args: -_policy(*args),
            ),
            Mistake(
                "padding in the mean",
                "Divide by the number of tokens under the mask.",
                lambda *args: _policy(*args, everywhere=True),
            ),
        ),
        hints=(
            "The ratio of probabilities is exp of a difference.",
            "torch.minimum(ratio * A, ratio.clamp(0.8, 1.2) * A), with A as a column.",
            "Index with the mask, mean, minus.",
        ),
    ),
    Exercise(
        name="posttraining.penalized_loss",
        title="What the gradient must not see",
        minutes=20,
        why="An advantage says how much a sample is worth. It is a number, and has no "
        "gradient, even when it was computed from one that does.",
        answer=(_penalized,),
        reference=_penalized,
        call=_gradient,
        inputs=_penalized_inputs(),
        examples=(
            (-_ONE.repeat(2), _ONE.repeat(2) * 0, torch.eye(2)[0].double(), 0.5),
        ),
        mistakes=(
            Mistake(
                "advantage not detached",
                "The advantage depends on the log-probability, and is differentiated "
                "with it: detach() it first.",
                lambda *args: _penalized(*args, detach=False),
            ),
            Mistake(
                "a reward for moving away",
                "The penalty is taken off the reward.",
                lambda *args: _penalized(*args, sign=-1),
            ),
            Mistake(
                "no baseline",
                "Take off the mean of the batch.",
                lambda *args: _penalized(*args, center=False),
            ),
            Mistake(
                "uphill",
                "A loss is made small: minus the mean.",
                lambda *args: -_penalized(*args),
            ),
        ),
        hints=(
            "First the numbers: reward minus penalty, minus their mean.",
            "They are numbers only after detach().",
            "-(advantages.detach() * log_probs).mean()",
        ),
    ),
    Exercise(
        name="posttraining.dpo_loss",
        title="Better than, instead of good",
        minutes=15,
        why="It starts at ln 2, always. If yours does not, it is not this loss.",
        answer=(posttraining.dpo_loss,),
        reference=posttraining.dpo_loss,
        inputs=_pairs(),
        examples=(
            (-_ONE, -3 * _ONE, -2 * _ONE, -2 * _ONE, 0.5),
            (-2000 * _ONE, -_ONE, -_ONE, -_ONE, 0.5),
        ),
        mistakes=(
            Mistake(
                "without the reference",
                "What counts is how much more likely than under the reference.",
                lambda w, b, rw, rb, beta: -F.logsigmoid(beta * (w - b)).mean(),
            ),
            Mistake(
                "chosen and rejected exchanged",
                "The chosen answer gains, so its side is positive.",
                lambda w, b, rw, rb, beta: (
                    -F.logsigmoid(-beta * _margin(w, b, rw, rb)).mean()
                ),
            ),
            Mistake(
                "beta outside",
                "Beta scales the margin, inside the sigmoid.",
                lambda w, b, rw, rb, beta: (
                    -beta * F.logsigmoid(_margin(w, b, rw, rb)).mean()
                ),
            ),
            Mistake(
                "overflows",
                "The sigmoid of -1000 is 0, and its logarithm infinite: logsigmoid.",
                lambda w, b, rw, rb, beta: (
                    -torch.sigmoid(beta * _margin(w, b, rw, rb)).log().mean()
                ),
            ),
            Mistake(
                "the mean inside",
                "Each pair has its own loss; then the mean.",
                lambda w, b, rw, rb, beta: (
                    -F.logsigmoid(beta * _margin(w, b, rw, rb).mean())
                ),
            ),
        ),
        hints=(
            "How much more likely has each side become? A difference of logarithms.",
            "The difference of the two, times beta.",
            "-F.logsigmoid(…).mean()",
        ),
    ),
    Exercise(
        name="posttraining.verify",
        title="A verifier that cannot be fooled so easily",
        minutes=15,
        why="Whatever a verifier accepts, a policy will find.",
        answer=(_verify,),
        reference=_verify,
        inputs=_claims(),
        examples=(
            ("4 or ", "4 or 7", 4),
            ("7 or ", "7 or no", 7),
            ("7 or ", "7 or 14", 4),
            ("1 or ", "1 or 4 7", 4),
            ("1 or ", "1 or 7 4", 4),
        ),
        mistakes=(
            Mistake(
                "reward leaking into the prompt",
                "The prompt has numbers, too: look only at what comes after it.",
                lambda *args: _verify(*args, cut=False),
            ),
            Mistake(
                "occurs somewhere",
                "A model that writes all numbers would always be right.",
                lambda prompt, text, answer: float(str(answer) in text[len(prompt) :]),
            ),
            Mistake(
                "the first number",
                "The last one counts, so that a model may think aloud.",
                lambda *args: _verify(*args, which=0),
            ),
            Mistake(
                "ends with it",
                "14 ends with 4 and is another number.",
                lambda prompt, text, answer: float(
                    text[len(prompt) :].rstrip(" no").endswith(str(answer))
                ),
            ),
        ),
        hints=(
            "Cut the prompt off by its length.",
            "re.findall('[0-9]+', …) gives the numbers in order.",
            "None: 0.0. Otherwise compare int of the last one.",
        ),
    ),
)
