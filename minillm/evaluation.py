r"""Evaluation: how good is it, and how sure are we?

**The question.** A model answers 45 questions of a hundred, last week's answered 40.
Is it better? Every decision in this course, which data, which learning rate, which kind
of fine-tuning, ends in such a pair of numbers.

**Before this:** [`minillm.posttraining`][], whose scores are used as examples; nothing
else of it is needed. A *score* here is a mean over questions, and the questions are a
sample of those that could have been asked.

# 1. A score is an estimate

Suppose the true rate is 40 %. How often does a test of a hundred questions show 45 % or
more? Count all outcomes, each with its probability:

>>> n, p = 100, 0.40
>>> chance = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
>>> round(sum(chance[45:]), 2)
0.18

One time in six the *same* model would have passed for a better one. So a score needs an
interval. The usual one, $\hat p \pm 1.96 \sqrt{\hat p (1 - \hat p) / n}$, has a flaw:
after no right answer among twenty it is from 0 to 0, as if we knew everything.
[`binomial_interval`][minillm.inference.intervals.binomial_interval] does not have it:

>>> [round(x, 2) for x in binomial_interval(0, 20)]
[0.0, 0.16]
>>> [round(x, 2) for x in binomial_interval(45, 100)]
[0.36, 0.55]

# 2. How many questions?

The interval is wide. To tell 45 % from 40 % in four cases of five, at the usual level,
takes ([`questions_needed`][minillm.inference.intervals.questions_needed])

>>> questions_needed(0.40, 0.45)
1531

questions for each model. Half the difference takes four times as many, for the width
shrinks with $\sqrt n$. HumanEval, on which models of code have been compared for years,
has 164 (Chen et al. 2021).

# 3. Ask both the same questions

A large part of the noise is common to both models: some questions are hard for every
model. If both get the *same* questions, they can be compared question by question, and
what is common cancels. Below, each of 300 questions has a difficulty; model B is better
by a little everywhere. The interval of the difference, with the pairs kept and with the
pairs thrown away:

>>> random = np.random.default_rng(0)
>>> ease = random.beta(0.3, 0.3, size=300)  # most are easy, or hopeless
>>> u = random.random(300)
>>> a, b = (u < 0.9 * ease).astype(float), (u < 0.9 * ease + 0.05).astype(float)
>>> difference = b.mean() - a.mean()
>>> low, high = bootstrap_interval(b - a)  # paired
>>> print(f"{difference:.2f}, from {low:.2f} to {high:.2f}")
0.05, from 0.03 to 0.08
>>> half = 1.96 * math.sqrt(a.var() / 300 + b.var() / 300)  # unpaired
>>> print(f"{difference:.2f}, from {difference - half:.2f} to {difference + half:.2f}")
0.05, from -0.03 to 0.13

The same answers of the same models: the first interval excludes zero and the second
does not. (How much it helps depends on how alike the models are; here they share even
their luck. Two versions of one model usually are alike.) The interval itself comes from
[`bootstrap_interval`][minillm.inference.intervals.bootstrap_interval], which needs no
formula for the metric at hand.

# 4. Seeds are a sample, too

A model that was trained with another seed scores differently on the *same* questions,
and no interval over questions accounts for that. When a paper says that method X beats
Y by two points, ask what was varied: questions, or seeds, too?
[`spread`][minillm.evaluation.spread] separates the two. Here it is given three seeds of
a run of the last chapter. Each was asked the same 300 problems 64 times, before it was
trained by rewards, and after:

>>> from minillm.labs.posttraining import rates
>>> for when in ("before", "after"):
...     s = spread(rates("policy, sort", when))
...     print(f"{when}: {s.mean:.3f}, seeds {s.seeds:.3f}, questions {s.questions:.3f}")
before: 0.359, seeds 0.068, questions 0.017
after: 0.596, seeds 0.101, questions 0.018

Both are standard deviations of one score, and add up as squares. A handful of
demonstrations makes very different models; an interval from one of them, over however
many questions, would have claimed a precision that does not exist.

# 5. The wording is a sample, too

Another prompt is another test. SmolLM2 (135 million weights) was asked forty sums of
two numbers below ten, in five wordings ([`minillm.labs.wordings`][]), from "9 + 9 =" to
"If you add 9 to 9, you get". The share of right answers to each wording:

>>> from minillm.labs.wordings import committed_answers
>>> asked = committed_answers("SmolLM2-135M-Instruct.Q4_1")
>>> [round(sum(right) / 40, 2) for right in asked["wordings"]]
[0.15, 0.12, 0.15, 0.25, 0.45]

The best has more than three times the right answers of the worst. Which of them is the
score of this model? If you try some and report the best, you have chosen your result.
And with three solved sums before the question, in each of their six orders:

>>> [round(sum(right) / 40, 2) for right in asked["orders"]]
[0.55, 0.72, 0.8, 0.8, 0.65, 0.7]

The examples help, and their order, which carries no information, moves the score by up
to 25 points (Lu et al. 2022, arXiv:2104.08786, found it in larger models). Wordings and
orders can take the place of seeds in the same function:

>>> for kind in ("wordings", "orders"):
...     s = spread(asked[kind])
...     print(f"{kind}: {s.mean:.2f}, ways {s.seeds:.3f}, questions {s.questions:.3f}")
wordings: 0.23, ways 0.135, questions 0.038
orders: 0.70, ways 0.095, questions 0.056

Here which words were chosen matters more than which questions. Say how you asked, and
ask in several ways.

# 6. What counts as an answer?

*Exact match* lets the model write and compares. *Likelihood of choices* never lets it
write: it computes $\ln p(\text{choice} \mid \text{prompt})$ for each of the choices and
takes the greatest ([`score_choices`][minillm.inference.choices.score_choices]). It
needs
no parsing, and a model that cannot follow a format can still be asked. But longer
choices are less likely, whatever they say. So people divide: by the number of tokens,
or of bytes. Or they subtract what the choice has *without* the question, its *prior*
(Holtzman et al. 2021, arXiv:2104.08315, "surface form competition"). One model, one
question, three winners:

>>> scores = Choices(
...     log_likelihoods=np.array([-6.0, -7.0, -8.0]),
...     n_tokens=np.array([1, 2, 2]),
...     n_bytes=np.array([4, 5, 9]),
...     priors=np.array([-5.0, -9.0, -8.0]),
... )
>>> {by: scores.best(by) for by in ("total", "token", "byte", "prior")}
{'total': 0, 'token': 1, 'byte': 2, 'prior': 1}

None is right in itself. What must not happen is that two models are compared by
different ones, or that the one is chosen after the results are in. Count bytes rather
than tokens if the models have different tokenizers.

Guessing among four choices is right in 25 % of cases, among two in 50 %. Corrected for
chance, 0 is guessing and 1 is perfect:

>>> round(chance_corrected(0.45, 4), 2), round(chance_corrected(0.55, 2), 2)
(0.27, 0.1)

# 7. Several tries

With $k$ tries, what counts is whether *one* is right: `pass@k`. Estimated from $n$
samples, $c$ of them right, the obvious $1 - (1 - c/n)^k$ is wrong on average: a square
of a mean is not the mean of squares. From ten samples, when each is right with
probability 0.1, for $k = 10$:

>>> p, n, k = 0.1, 10, 10
>>> chance = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
>>> naive = sum(q * (1 - (1 - c / n) ** k) for c, q in enumerate(chance))
>>> unbiased = sum(q * pass_at_k(n, c, k) for c, q in enumerate(chance))
>>> round(1 - (1 - p) ** k, 3), round(naive, 3), round(unbiased, 3)
(0.651, 0.494, 0.651)

# 8. A judge has a taste

Where no program can check an answer, another model compares two of them. Such judges
like length (Dubois et al. 2024, arXiv:2404.04475). Here is one whose taste is known,
because it is a formula: it adds one point of quality for each hundred characters.
Model B is no better than A, but says everything in 150 characters more:

>>> quality_a, quality_b = random.normal(size=(2, 1000))
>>> length_a = random.uniform(100, 500, size=1000)
>>> length_b = length_a + 150
>>> wins = quality_b + length_b / 100 > quality_a + length_a / 100
>>> print(f"B wins {wins.mean():.0%}; in truth {(quality_b > quality_a).mean():.0%}")
B wins 86%; in truth 48%

A narrow interval around 86 % would have been no help: an interval knows the error of
chance, never that of the question. The same holds for questions whose answers stood in
the training text; chapter 9 measures how many do.

# What we leave out

Correction for many comparisons: the best of twenty runs is better by luck alone.
Ratings from many pairs (Elo). Calibration. Evaluation by people.

# References

Chen et al. 2021, arXiv:2107.03374, equation 1. Dubois et al. 2024, arXiv:2404.04475.
Efron 1979, *Bootstrap methods*, Annals of Statistics 7. Holtzman et al. 2021,
arXiv:2104.08315. Lu et al. 2022, arXiv:2104.08786. Miller 2024, *Adding error bars to
evals*, arXiv:2411.00640. Wilson 1927, Journal of the American Statistical Association
22.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from minillm.inference.choices import Choices, choice_log_likelihoods, score_choices
from minillm.inference.intervals import (
    binomial_interval,
    bootstrap_interval,
    questions_needed,
)
from minillm.inference.tries import pass_at_k

__all__ = [
    "Choices",
    "Spread",
    "binomial_interval",
    "bootstrap_interval",
    "chance_corrected",
    "choice_log_likelihoods",
    "pass_at_k",
    "questions_needed",
    "score_choices",
    "spread",
]


class Spread(NamedTuple):
    """Where the chance in a score comes from.

    Attributes:
        mean: over seeds and questions.
        seeds: the standard deviation of one seed's score that is due to its seed.
        questions: the same, that is due to which questions were asked.
    """

    mean: float
    seeds: float
    questions: float


def spread(rates: ArrayLike) -> Spread:
    r"""Separate the chance of the seed from the chance of the questions.

    Args:
        rates: (seeds, questions), at least two of each: how often each model answers
            each question right.

    Returns:
        Mean and standard deviations. All seeds share the questions, so what these
        contribute is the deviation of their means over the seeds, divided by the root
        of their number.

    Raises:
        ValueError: if there are fewer than two seeds or questions.

    Examples:
        Two models that agree everywhere have no spread between seeds:

        >>> spread([[1, 0, 0, 1], [1, 0, 0, 1]])
        Spread(mean=0.5, seeds=0.0, questions=0.28867513459481287)
    """
    x = np.asarray(rates, dtype=np.float64)
    if x.ndim != 2 or min(x.shape) < 2:
        raise ValueError(
            f"two seeds and two questions are needed at least; got the shape {x.shape}"
        )
    questions = x.mean(0).std(ddof=1) / math.sqrt(x.shape[1])
    return Spread(float(x.mean()), float(x.mean(1).std(ddof=1)), float(questions))


def chance_corrected(accuracy: float, n_choices: int) -> float:
    r"""Rescale an accuracy so that guessing is 0 and perfect is 1.

    Args:
        accuracy: the share of right answers.
        n_choices: how many choices each question has, at least 2.

    Returns:
        $(a - \frac1m) / (1 - \frac1m)$; negative if worse than guessing.

    Raises:
        ValueError: if there are fewer than two choices, or the accuracy is no share.

    Examples:
        >>> chance_corrected(0.5, 2), chance_corrected(1.0, 4)
        (0.0, 1.0)
    """
    if n_choices < 2:
        raise ValueError(f"a question has at least 2 choices; got {n_choices}")
    if not 0 <= accuracy <= 1:
        raise ValueError(
            f"an accuracy is a share in [0, 1]; got {accuracy}: write 45 % as 0.45"
        )
    return (accuracy - 1 / n_choices) / (1 - 1 / n_choices)
