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

Nearly one time in five the *same* model would have passed for a better one. So a score
needs an interval. The usual one, $\hat p \pm 1.96 \sqrt{\hat p (1 - \hat p) / n}$, has
a flaw: after no right answer among twenty it is from 0 to 0, as if we knew everything.
[`binomial_interval`][minillm.inference.intervals.binomial_interval] does not have it:

>>> [round(x, 2) for x in binomial_interval(0, 20)]
[0.0, 0.16]
>>> [round(x, 2) for x in binomial_interval(45, 100)]
[0.36, 0.55]

# 2. How many questions?

The interval is wide. If the 95 % interval of the difference is to exclude zero in four
cases of five, telling 45 % from 40 % takes
([`questions_needed`][minillm.inference.intervals.questions_needed])

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
does not. How much pairs help depends on how alike the models are. Here they share even
their luck `u`, as two versions of one model nearly do. With luck of its own, the
interval of B is narrower by a fifth:

>>> own = np.random.default_rng(1).random(300)
>>> b = (own < 0.9 * ease + 0.05).astype(float)
>>> low, high = bootstrap_interval(b - a)
>>> half = 1.96 * math.sqrt(a.var() / 300 + b.var() / 300)
>>> print(f"paired ± {(high - low) / 2:.2f}, unpaired ± {half:.2f}")
paired ± 0.06, unpaired ± 0.08

The interval itself comes from
[`bootstrap_interval`][minillm.inference.intervals.bootstrap_interval], which needs no
formula for the metric at hand.

# 4. Seeds are a sample, too

A model that was trained with another seed scores differently on the *same* questions,
and no interval over questions accounts for that. When a paper says that method X beats
Y by two points, ask what was varied: questions, or seeds, too?
[`spread`][minillm.evaluation.spread] estimates the part of each. Here it is given three
seeds of a run of the last chapter. Each was asked the same 300 problems 64 times,
before it was trained by rewards, and after:

>>> from minillm.labs.posttraining import rates
>>> for when in ("before", "after"):
...     s = spread(rates("policy, sort", when))
...     print(when, *(f"{name} {x:.3f}" for name, x in s._asdict().items()))
before mean 0.359 seeds 0.065 questions 0.014 rest 0.018
after mean 0.596 seeds 0.099 questions 0.014 rest 0.019

The last three are standard deviations of one seed's score, and add up as squares; the
*rest* is the luck of single answers, and questions that are hard for one seed alone. A
handful of demonstrations makes very different models; an interval from one of them,
over however many questions, would have claimed a precision that does not exist. For
the difference between two runs of a few seeds there is
[`mean_interval`][minillm.inference.intervals.mean_interval], which chapter 9 used.

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

The examples help, and between the best and the worst order lie 25 points, though an
order carries no information (Lu et al. 2022, arXiv:2104.08786, found it in larger
models). How many of them are luck? Shuffle the six answers to each question, so that an
answer has no order any more, and see how far apart the six scores are then:

>>> shuffle = np.random.default_rng(0).permuted
>>> ranges = [np.ptp(shuffle(asked["orders"], axis=0).mean(1)) for _ in range(2000)]
>>> above = np.mean(np.array(ranges) > 0.2499)
>>> print(f"{np.mean(ranges):.2f}; as far as the real ones in {above:.0%}")
0.13; as far as the real ones in 1%

Half of it, but not all. Wordings and orders can take the place of seeds in `spread`,
which has luck in its rest:

>>> names = ("mean", "ways", "questions", "rest")
>>> for kind in ("wordings", "orders"):
...     found = zip(names, spread(asked[kind]), strict=True)
...     print(kind, *(f"{name} {x:.3f}" for name, x in found))
wordings mean 0.225 ways 0.122 questions 0.028 rest 0.058
orders mean 0.704 ways 0.082 questions 0.052 rest 0.049

Here how the question was put matters more than which questions. Say how you asked, and
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
    """Where the chance in the score of one seed comes from.

    Attributes:
        mean: over seeds and questions.
        seeds: the standard deviation that is due to the seed.
        questions: that is due to which questions were asked: some are hard for all.
        rest: that is due to neither alone: the luck of single answers, and questions
            that are hard for one seed and easy for another.
    """

    mean: float
    seeds: float
    questions: float
    rest: float


def spread(rates: ArrayLike) -> Spread:
    r"""Separate the chance of the seed from the chance of the questions.

    The scores of $S$ seeds on $n$ questions differ even if the seeds do not matter,
    since single answers are a matter of luck. What is left of the table $x_{sq}$
    without the means of its rows and columns says how much, $M = \frac{1}{(S - 1)(n -
    1)} \sum_{sq} (x_{sq} - \bar x_s - \bar x_q + \bar x)^2$, and is taken off the
    variances of these means (*analysis of variance*):

    $$\text{seeds}^2 = \operatorname{Var}_s \bar x_s - \frac Mn \qquad
    \text{questions}^2 = \frac1n \Bigl(\operatorname{Var}_q \bar x_q - \frac MS\Bigr)
    \qquad \text{rest}^2 = \frac Mn$$

    Args:
        rates: (seeds, questions), at least two of each: how often each model answers
            each question right.

    Returns:
        Mean and standard deviations; zero where an estimate of a variance is negative.

    Raises:
        ValueError: if there are fewer than two seeds or questions.

    Examples:
        Two models that agree everywhere have no spread between seeds. Of two that agree
        nowhere, and have the same score, all is rest:

        >>> [round(x, 2) for x in spread([[1, 0, 0, 1], [1, 0, 0, 1]])]
        [0.5, 0.0, 0.29, 0.0]
        >>> [round(x, 2) for x in spread([[1, 0, 1, 0], [0, 1, 0, 1]])]
        [0.5, 0.0, 0.0, 0.41]
    """
    x = np.asarray(rates, dtype=np.float64)
    if x.ndim != 2 or min(x.shape) < 2:
        raise ValueError(
            f"two seeds and two questions are needed at least; got the shape {x.shape}"
        )
    n_seeds, n = x.shape
    of_seed, of_question = x.mean(1, keepdims=True), x.mean(0)
    left = ((x - of_seed - of_question + x.mean()) ** 2).sum()
    left /= (n_seeds - 1) * (n - 1)
    seeds = of_seed.var(ddof=1) - left / n
    questions = (of_question.var(ddof=1) - left / n_seeds) / n
    deviations = (math.sqrt(max(0.0, v)) for v in (seeds, questions, left / n))
    return Spread(float(x.mean()), *deviations)


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
