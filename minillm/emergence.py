r"""More is different: what a small model cannot tell you, and what it can.

**The question.** The models on this site are a hundred thousand times smaller than
those you read about, and so are most models that anybody outside a few companies can
train. When a small model fails at something, will a larger one fail too?

**Before this:** the whole course. What follows are experiments with its parts, on many
models, each of which trains in seconds to minutes. Every number below is read from the
results that lie beside the figures ([`committed`][minillm.labs.bench.committed]);
`minillm lab NAME --quick` repeats them on your machine in a few minutes.

# Absent, until it is not

Give a model sequences that each follow a rule of their own, which it can find only in
the sequence itself: what comes next depends on the present state alone (a *Markov
chain*), by a table of transitions that is new in every sequence
([`minillm.labs.context`][]). A model that counts how often each state occurs reaches a
loss near 0.99, the *unigram baseline*. One that counts which state follows which
reaches 0.85, the *bigram baseline*, and nothing can do better. Here is what models of
two layers and of one layer do while they train. Each colour is a width, each band the
range over seeds:

<div class="figure" markdown>

--8<-- "images/lab-context-steps.svg"

</div>

Every two-layer model soon reaches the unigram baseline, and stands still there. For how
long depends on its width and on the seed. Below, the share of its training from the
first loss under 0.995 to the [`jump`][minillm.labs.context.jump], where the loss comes
closer to the bigram baseline than to the unigram baseline. Two models never jump:

>>> def same(**changes):  # the runs that differ from the base in this alone
...     return [r for r in committed(LABS["context"]) if r["config"] == BASE | changes]
>>> def stood(run):
...     first = next(flops for flops, loss in curve(run) if loss < 0.995)
...     return f"{(jump(run) - first) / run['flops']:.0%}" if jump(run) else "never"
>>> for width in (8, 16, 32, 64):
...     print(width, *(stood(run) for run in same(width=width)))
8 60% never never
16 18% 15% 15%
32 48% 50% 5%
64 68% 12% 45%

A researcher whose budget ends on that plateau sees a model of width 32
([`BASE`][minillm.labs.context.BASE]) that learned to count and stopped, and the curve
is flat:

>>> from statistics import mean
>>> runs, poor, rich = same(), 1e11, 8e11
>>> for budget in (poor / 2, poor):
...     print(f"{budget:.0e} FLOPs: loss {mean(within(r, budget) for r in runs):.2f}")
5e+10 FLOPs: loss 1.01
1e+11 FLOPs: loss 0.99

"Does not work", says the report. The same models, after eight times the compute:

>>> print(f"{rich:.0e} FLOPs: loss {mean(within(r, rich) for r in runs):.2f}")
8e+11 FLOPs: loss 0.87

**The failure, as a number.** Fit a power law to what that researcher saw
([`power_law`][minillm.labs.scaling.power_law]), and let it predict:

>>> seen = [row for r in runs for row in curve(r) if 2e10 < row[0] <= poor]
>>> law = power_law([flops for flops, _ in seen], [loss for _, loss in seen])
>>> loss, low, high = law.at(rich)
>>> print(f"predicted {loss:.2f}, at least {low:.2f}")
predicted 0.97, at least 0.95
>>> print("outcome", *(round(within(r, rich), 2) for r in runs))
outcome 0.87 0.87 0.86

When it happens is partly luck. The same model needs different budgets with different
seeds, and with two of these three more than half of its training. (Of width 8, two
seeds had not got there when their training ended.)

>>> [f"{jump(r):.1e}" for r in runs]
['4.6e+11', '4.8e+11', '1.6e+11']

With eight states instead of three there are 64 pairs to count instead of nine, and the
plateau is there again. One model of two layers, two heads and width 64:

>>> (eight,) = [r for r in committed(LABS["context"]) if r["config"]["states"] == 8]
>>> print(f"unigram {eight['unigram'][0]:.2f}, bigram {eight['bigram'][0]:.2f}")
unigram 2.07, bigram 1.89
>>> for budget in (1e12, 2e12, 4e12, 8e12):
...     print(f"{budget:.0e} FLOPs: loss {within(eight, budget):.2f}")
1e+12 FLOPs: loss 2.05
2e+12 FLOPs: loss 2.05
4e+12 FLOPs: loss 1.92
8e+12 FLOPs: loss 1.90

One layer never gets there in as many steps, at any width that we tried. The least loss
that it ends with, the compute that it had, and the compute at which two layers jump:

>>> for width in (16, 32, 64):
...     one, two = same(width=width, layers=1), same(width=width)
...     jumps = ", ".join(f"{jump(r):.1e}" for r in two)
...     loss = min(r["curve"][-1][1] for r in one)
...     print(f"{width}: loss {loss:.2f}, FLOPs {one[0]['flops']:.1e}; two: {jumps}")
16: loss 0.98, FLOPs 1.2e+11; two: 7.3e+10, 6.7e+10, 5.5e+10
32: loss 0.98, FLOPs 4.0e+11; two: 4.6e+11, 4.8e+11, 1.6e+11
64: loss 0.98, FLOPs 1.2e+12; two: 1.9e+12, 6.0e+11, 1.3e+12

At width 16 it had more compute than any model of two layers needed. At the larger
widths it had less than two of three needed, so there it may only be slow: see *Your
turn*.

# What forms at the jump

The loss says that something happened, not what. So look inside, at what the two layers
attend to. Each picture is one sequence; each row is a position, and shows how much it
attends to each earlier position:

<div class="figure" markdown>

--8<-- "images/lab-context-maps.svg"

</div>

After the jump a good part of the first layer's attention goes to the previous position:
it is on the way to a *previous-token head*. The second layer attends to positions that
come after an earlier occurrence of the present state: an *induction head*. Together
they answer "what came next, the last times?". Both scores rise together with the skill,
at the same steps:

<div class="figure" markdown>

--8<-- "images/lab-context-heads.svg"

</div>

So here is an explanation: each half is useless without the other, nothing rewards
building only one, and that is why there is a plateau. The picture agrees with it and
does not prove it, since two things that rise together may share another cause. It can
be tested. Plant one half: make the first layer attend to the previous position from the
first step on, and train the rest as before.

>>> planted = [r for r in committed(LABS["context"]) if "planted" in r["config"]]
>>> print("learned", *(f"{jump(r):.1e}" for r in runs))
learned 4.6e+11 4.8e+11 1.6e+11
>>> print("planted", *(f"{jump(r):.1e}" for r in planted))
planted 2.2e+11 2.2e+11 1.8e+11

The plateau is not gone ([`mean_interval`][minillm.inference.intervals.mean_interval]
gives the interval, as in chapter 9):

>>> print("it takes", *(stood(run) for run in planted))
it takes 22% 20% 18%
>>> saved = [jump(old) - jump(new) for old, new in zip(runs, planted, strict=True)]
>>> print("earlier by {:.1e} ± {:.1e} FLOPs".format(*mean_interval(saved)))
earlier by 1.6e+11 ± 3.9e+11 FLOPs

So the missing half was not all of the reason. Whether it was part of it, three seeds do
not tell: two plateaus are half as long, the third is a little longer, and the interval
holds zero. And the planted models hold a surprise. They reach the bigram baseline
*without* an induction head; their second layer attends to positions after the present
state no more than if it attended to all alike:

>>> for r in planted:
...     step, loss, accuracy, previous, induction = r["curve"][-1]
...     print(f"loss {loss:.2f}, induction {induction:.2f}, uniform {r['even']:.2f}")
loss 0.86, induction 0.41, uniform 0.41
loss 0.86, induction 0.40, uniform 0.41
loss 0.86, induction 0.38, uniform 0.41

There is a second way. When each position knows its predecessor, one uniform average
over all positions counts all nine pairs at once, and the feed-forward network can pick
the row of the present state. The pair of heads that everybody draws is a solution that
training finds, not the only one.

Olsson et al. (2022, arXiv:2209.11895) saw the same pair in language models: in every
one with more than one layer, induction heads form within a short window of training, at
which the model begins to use its context, and a bump in the loss marks it; with one
layer there is neither. Edelman et al. (2024, arXiv:2402.11004), whose task this is,
found the stages that you see above: uniform guesses, then unigram counts, then bigram
counts.

Models of real text have the pair, too, and it shows from outside. A sequence of random
tokens, written twice in a row, is noise the first time. The second time it can be
predicted with certainty, by finding the earlier occurrence and reading on
([`minillm.labs.repeats`][], read back by
[`committed_copies`][minillm.labs.repeats.committed_copies]). Here is SmolLM2, of 135
million parameters, beside the model of `minillm demo`. Nats per token in either copy;
then the attention that the best head of all gives to the position after the same token,
and to the previous position:

>>> for name, c in committed_copies().items():
...     heads = f"induction {c.induction:.2f}, previous {c.previous:.2f}"
...     print(f"{name[:8]}: first {c.first:.1f}, second {c.second:.1f}; {heads}")
SmolLM2-: first 14.2, second 2.6; induction 0.90, previous 0.90
demo: first 11.3, second 11.4; induction 0.01, previous 0.44

Noise costs both more than uniform guessing would ($\ln 49152 = 10.8$ and
$\ln 2048 = 7.6$), since they expect language. The second copy helps only the large
one. The small one has half of the pair, a head that attends to the previous position,
and no other head that would make use of it.

# One model in time, many models in size

The picture that made emergence famous is another one. Wei et al. (2022,
arXiv:2206.07682, figure 2) plot *different models*, each once, when its training has
ended, against the compute of that training. Eight panels show eight tasks: arithmetic,
transliteration into phonetic spelling, unscrambling words, questions in Persian,
truthfulness, grounded concepts, the questions of MMLU, and words in context. In the
panel of arithmetic, GPT-3's accuracy stays near zero over several orders of magnitude
and leaves it at $2 \cdot 10^{22}$ FLOPs, LaMDA's at $10^{23}$. The two kinds of picture
must not be confused: a jump in time could vanish in such a plot, if every model trained
past it. Here are the final scores of all our models:

<div class="figure" markdown>

--8<-- "images/lab-context-models.svg"

</div>

It shows a jump, too, and something that a picture with one family of models would have
hidden: compute alone does not decide. From width 16 on, every wider model jumped after
*more* compute, not less; width 8 needed more than width 16 again, if it jumped at all;
and with each seed two narrow heads in place of one jumped earlier:

>>> for changes in *({"width": width} for width in (8, 16, 32, 64)), {"heads": 2}:
...     jumps = (jump(run) for run in same(**changes))
...     print(changes, *(f"{flops:.0e}" if flops else "never" for flops in jumps))
{'width': 8} 8e+10 never never
{'width': 16} 7e+10 7e+10 5e+10
{'width': 32} 5e+11 5e+11 2e+11
{'width': 64} 2e+12 6e+11 1e+12
{'heads': 2} 8e+10 1e+11 8e+10

"It emerges at so many FLOPs" is a statement about one recipe.

# Is the jump in the model, or in the metric?

Schaeffer et al. (2023, arXiv:2304.15004) objected that many jumps are made by the
metric. If an answer of eight symbols counts only when all are right, a model that
improves steadily looks as if it had woken up. So take models of growing compute, and
score each by three metrics ([`minillm.labs.digits`][]):

<div class="figure" markdown>

--8<-- "images/lab-digits.svg"

</div>

On the *code*, a table learned by heart, they are right. Exact match stays at zero and
then shoots up; by the other two metrics the same models improve from the start. And
nothing is left to explain: the share of right answers is $p^k$, the share of right
symbols to the power of their number (the crosses).

>>> code = [r for r in committed(LABS["digits"]) if r["config"]["task"] == "code"]
>>> def last(r):
...     return dict(zip(("step", "answers", "symbols", "ln"), r["curve"][-1]))
>>> max(abs(last(r)["answers"] - last(r)["symbols"] ** 8) for r in code) < 0.04
True
>>> few = [r for r in code if last(r)["answers"] < 0.01]
>>> max(last(r)["symbols"] for r in few) > 0.3
True

On *sums* both readings hold a part of the truth. The crosses lie near the line again
for all but two of 35 models, so exact match does sharpen the picture:

>>> sums = [r for r in committed(LABS["digits"]) if r["config"]["task"] == "sums"]
>>> off = [abs(last(r)["answers"] - last(r)["symbols"] ** 5) for r in sums]
>>> sum(distance < 0.03 for distance in off), len(off)
(33, 35)

But the smooth metrics have a plateau here, too, and a step: a model must find out which
digits to add, and until it has, none of the sums gets better. One and the same
configuration, at one and the same compute, has found it with some seeds and not with
others:

>>> lucky = [
...     last(r)["symbols"]
...     for r in sums
...     if (r["config"]["width"], r["config"]["steps"]) == (16, 800)
... ]
>>> min(lucky) < 0.35, max(lucky) > 0.9
(True, True)

No metric can make that difference. And the jump of the first section was measured in
nats, the smoothest metric there is. So: a jump in exact match alone proves nothing.
Look at the likelihood of the right answer. If that is flat and then falls, something
formed.

# What does carry over

The loss on ordinary text adds up very many skills. Each may jump at a compute of its
own; a sum of many small jumps is a slope. So take a family of models that differ in
width alone ([`minillm.labs.scaling`][]). Spend each of three small budgets on six
sizes, with three seeds: every curve comes down and goes up again, and its bottom is the
best loss of that budget. A line through the bottoms is the forecast for ten times the
largest of them. Then spend that budget too, on four sizes, with three seeds:

<div class="figure" markdown>

--8<-- "images/lab-scaling.svg"

</div>

>>> told = forecast(committed(LABS["scaling"]))
>>> loss, low, high = told.law.at(told.budget)
>>> print(f"predicted {loss:.3f}, between {low:.3f} and {high:.3f}")
predicted 3.349, between 3.267 and 3.434
>>> print("outcome", *(round(outcome, 3) for outcome in told.outcomes))
outcome 3.216 3.209 3.215

The forecast is off by 4 %, and the outcome lies outside of its interval. Three budgets,
each twice the one before, fix a line poorly, and an interval that trusts the line to be
straight does not know that it bends.

Is that worse than the forecast of the skill in the first section? That one read the
loss in the middle of a training, this one at its end. Like against like: here are the
same models, trained to the end with an eighth, a quarter and half of the steps.

>>> finished = [
...     r
...     for r in committed(LABS["context"])
...     if r["config"]["steps"] < 1600 and r["config"] | {"steps": 1600} == BASE
... ]
>>> law = power_law(
...     [r["flops"] for r in finished], [r["curve"][-1][1] for r in finished]
... )
>>> loss, low, high = law.at(runs[0]["flops"])
>>> print(f"predicted {loss:.2f}, between {low:.2f} and {high:.2f}")
predicted 0.91, between 0.80 and 1.04
>>> print("outcome", *(round(r["curve"][-1][1], 2) for r in runs))
outcome 0.87 0.88 0.86

The outcome lies inside of this interval, and so does everything else that could have
happened: it reaches from below the bigram baseline to above the unigram baseline. The
forecast of the text said something and was a little wrong. This one says nothing.

# The moral

What can be forecast, and by which metric? The loss on ordinary text, to a few percent,
and less surely than its interval says. An ability whose smooth metric already moves: on
the code, $p^k$ foretells exact match. So OpenAI could forecast the pass rate of GPT-4
on a set of programming tasks from models with at most a thousandth of its compute; the
metric was the mean of the logarithm of the pass rate (OpenAI 2023, arXiv:2303.08774,
section 3.2). What cannot be forecast is a skill while it stands on a plateau in *every*
metric. From "it cannot" you may not conclude that a larger model cannot, nor, of
course, that it can. When you report that something does not work, report with it the
compute at which you looked.

# Your turn

Three questions, each answered by changing one argument. The minutes are for two cores
that have nothing else to do.

1. *Do more states make the plateau longer?* The unigram baseline is then further from
   the bigram baseline, but each pair is seen less often.
   `minillm lab context --quick --set states=5`: 2 minutes.
2. *Is one layer only slow?* Give the quick lab four times the steps.
   `minillm lab context --quick --set layers=1 --set steps=4800`: 3 minutes.
3. *Does a budget find the code's jump?* Guess first which models remain, and what you
   would have reported. `minillm lab digits --quick --budget 1.5e10`: 1 minute.

# What we leave out

One recipe for all: no search for the learning rate, which is one number in the first
two labs and $0.2 / d$ in the third. Another would move the jumps, and some models that
stayed flat might improve. Sizes differ by a hundred, not by
a million, and the tasks are made up; in return every model could be trained several
times.

# References

Anderson 1972, *More is different*, Science 177. Edelman et al. 2024, arXiv:2402.11004.
Hoffmann et al. 2022, arXiv:2203.15556. Kaplan et al. 2020, arXiv:2001.08361. Olsson et
al. 2022, arXiv:2209.11895. OpenAI 2023, arXiv:2303.08774. Schaeffer et al. 2023,
arXiv:2304.15004. Wei et al. 2022, arXiv:2206.07682.
"""

from typing import Any

from minillm.inference.intervals import mean_interval
from minillm.labs import context as lab_context
from minillm.labs import curation as lab_curation
from minillm.labs import digits as lab_digits
from minillm.labs import scaling as lab_scaling
from minillm.labs.bench import Lab, committed
from minillm.labs.context import BASE, jump
from minillm.labs.repeats import committed_copies
from minillm.labs.scaling import forecast, power_law

__all__ = [
    "BASE",
    "LABS",
    "committed",
    "committed_copies",
    "curve",
    "forecast",
    "jump",
    "mean_interval",
    "power_law",
    "within",
]

LABS: dict[str, Lab] = {
    lab.name: lab
    for lab in (lab_context.LAB, lab_digits.LAB, lab_scaling.LAB, lab_curation.LAB)
}
"""The experiments, by the names that `minillm lab` knows."""


def curve(result: dict[str, Any]) -> list[tuple[float, float]]:
    """Take a run's loss along the way.

    Args:
        result: what a lab measured of one model.

    Returns:
        The FLOPs of training so far, and the loss.

    Examples:
        >>> run = {"config": {"steps": 4}, "flops": 200, "curve": [[2, 0.9], [4, 0.7]]}
        >>> curve(run)
        [(100.0, 0.9), (200.0, 0.7)]
    """
    step = result["flops"] / result["config"]["steps"]
    return [(step * row[0], row[1]) for row in result["curve"]]


def within(result: dict[str, Any], budget: float) -> float:
    """Say what somebody with a smaller budget would have seen of a run.

    Args:
        result: what a lab measured of one model.
        budget: FLOPs of training.

    Returns:
        The loss when the budget was spent.

    Raises:
        ValueError: if the budget ends before the first evaluation.

    Examples:
        >>> run = {"config": {"steps": 4}, "flops": 200, "curve": [[2, 0.9], [4, 0.7]]}
        >>> within(run, 150)
        0.9
    """
    seen = [loss for flops, loss in curve(result) if flops <= budget]
    if not seen:
        first = curve(result)[0][0]
        raise ValueError(
            f"a budget of {budget:.3g} FLOPs ends before the first evaluation, at "
            f"{first:.3g}: give at least that"
        )
    return seen[-1]
