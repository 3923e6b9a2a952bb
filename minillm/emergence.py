r"""More is different: what a small model cannot tell you, and what it can.

**The question.** The models on this site are a hundred thousand times smaller than
those you read about, and so are most models that anybody outside a few companies can
train. When one of them fails at something, will a larger one fail too?

**Before this:** the whole course. What follows are experiments with its parts, on many
models, each of which trains in seconds to minutes. Every number below is read from the
results that lie beside the figures ([`committed`][minillm.labs.bench.committed]);
`minillm lab NAME --quick` repeats them on your machine in a few minutes.

# 1. Absent, until it is not

Give a model sequences that each follow a rule of their own, which it can only find in
the sequence itself ([`minillm.labs.context`][]). Whoever merely counts which states
occur has a loss near 0.99. Whoever counts which state *follows* which, the best that
can be done, comes to 0.85. Here is what models of two layers and of one make of it
while they train, each colour a width, each band the range over seeds:

<div class="figure" markdown>

--8<-- "images/lab-context-steps.svg"

</div>

Everybody soon finds the upper line. Then nothing happens, for most of the training. A
researcher whose budget ends there sees a model of width 32
([`BASE`][minillm.labs.context.BASE]) that learned to count and stopped, and the curve
is flat:

>>> from statistics import mean
>>> runs = [r for r in committed(LABS["context"]) if r["config"] == BASE]
>>> poor, rich = 1e11, 8e11
>>> for budget in (poor / 2, poor):
...     print(f"{budget:.0e} FLOPs: loss {mean(within(r, budget) for r in runs):.2f}")
5e+10 FLOPs: loss 1.01
1e+11 FLOPs: loss 0.99

"Does not work", says the report. Eight times the compute, the same models:

>>> print(f"{rich:.0e} FLOPs: loss {mean(within(r, rich) for r in runs):.2f}")
8e+11 FLOPs: loss 0.87

**The failure, as a number.** Fit a power law to what the poor researcher saw
([`power_law`][minillm.labs.scaling.power_law]), and let it predict:

>>> seen = [row for r in runs for row in curve(r) if 2e10 < row[0] <= poor]
>>> law = power_law([flops for flops, _ in seen], [loss for _, loss in seen])
>>> loss, low, high = law.at(rich)
>>> print(f"predicted {loss:.2f}, at least {low:.2f}")
predicted 0.97, at least 0.95
>>> print("came", *(round(within(r, rich), 2) for r in runs))
came 0.87 0.87 0.86

When it happens is luck in part: the same model with another seed took another budget,
and of width 8 some seeds had not got there when their training ended.

>>> [f"{jump(r):.1e}" for r in runs]
['4.6e+11', '4.8e+11', '1.6e+11']

With eight states instead of three there are 64 pairs to count instead of nine, and the
plateau is there, too. One model of two layers, two heads and width 64:

>>> (eight,) = [r for r in committed(LABS["context"]) if r["config"]["states"] == 8]
>>> print(f"counting states {eight['unigram'][0]:.2f}, pairs {eight['bigram'][0]:.2f}")
counting states 2.07, pairs 1.89
>>> for budget in (1e12, 2e12, 4e12, 8e12):
...     print(f"{budget:.0e} FLOPs: loss {within(eight, budget):.2f}")
1e+12 FLOPs: loss 2.05
2e+12 FLOPs: loss 2.05
4e+12 FLOPs: loss 1.92
8e+12 FLOPs: loss 1.90

One layer never gets there ([`jump`][minillm.labs.context.jump]), at any width that we
tried, and not for want of compute:

>>> one = [r for r in committed(LABS["context"]) if r["config"]["layers"] == 1]
>>> any(jump(r) for r in one), min(r["curve"][-1][1] for r in one) > 0.95
(False, True)

# 2. What forms at the jump

The loss says that something happened, not what. So look inside, at where the two layers
look. Each picture is one sequence; each row is a place, and shows how much it takes
from each place before it:

<div class="figure" markdown>

--8<-- "images/lab-context-maps.svg"

</div>

After the jump the first layer looks at the place just before: a *previous-token head*.
The second looks at places that come after an earlier occurrence of the present state:
an *induction head*. Together they answer "what came next, the last times?". Neither is
of use without the other, and this is why there is a plateau: half of the machine
improves nothing, so nothing rewards building it. Both scores rise together with the
skill, at the same steps:

<div class="figure" markdown>

--8<-- "images/lab-context-heads.svg"

</div>

Olsson et al. (2022, arXiv:2209.11895) saw the same in language models: in all of more
than one layer, induction heads form within a short window of training, at which the
model begins to make use of its context, and a bump in the loss marks it; with one layer
there is neither. Edelman et al. (2024, arXiv:2402.11004), whose task this is, found the
stages that you see above: even guesses, then counting states, then counting pairs.

Models of real text have the pair, too, and it shows from outside. Random tokens,
written twice in a row, are noise the first time, and certain the second time for
whoever finds the place and reads on ([`minillm.labs.repeats`][], read back by
[`committed_copies`][minillm.labs.repeats.committed_copies]). Here is SmolLM2, of 135
million parameters, beside the model of `minillm demo`. Nats per token in either copy;
the attention that the best head of all gives to the place after the same token, and to
the place before:

>>> for name, c in committed_copies().items():
...     heads = f"induction {c.induction:.2f}, previous {c.previous:.2f}"
...     print(f"{name[:8]}: first {c.first:.1f}, second {c.second:.1f}; {heads}")
SmolLM2-: first 14.2, second 2.6; induction 0.90, previous 0.90
demo: first 11.3, second 11.4; induction 0.01, previous 0.44

Noise costs both more than guessing evenly would ($\ln 49152 = 10.8$ and
$\ln 2048 = 7.6$), since they expect language. The second copy helps the large one
only. The small one has one half of the pair, a head that looks at the place before, and
no other that would make use of it.

# 3. One model in time, many models in size

The picture that made emergence famous is another one. Wei et al. (2022,
arXiv:2206.07682, figure 2) plot *different models*, each once, when it has been
trained, against the compute of its training. The two must not be confused: a jump in
time could vanish in such a picture, if every model trained past it. Here are the final
scores of all our models:

<div class="figure" markdown>

--8<-- "images/lab-context-models.svg"

</div>

It shows a jump, too, and something that a picture with one family of models would have
hidden: compute alone does not decide. Wider models jump after *more* compute, not less,
and two narrow heads in place of one jump after a fraction of it:

>>> for changes in ({"width": 16}, {"width": 32}, {"width": 64}, {"heads": 2}):
...     same = [r for r in committed(LABS["context"]) if r["config"] == BASE | changes]
...     print(changes, *(f"{jump(r):.0e}" for r in same))
{'width': 16} 7e+10 7e+10 5e+10
{'width': 32} 5e+11 5e+11 2e+11
{'width': 64} 2e+12 6e+11 1e+12
{'heads': 2} 8e+10 1e+11 8e+10

"It emerges at so many FLOPs" is a statement about one recipe.

# 4. Is the jump in the model, or in the ruler?

Schaeffer et al. (2023, arXiv:2304.15004) objected that many jumps are made by the
score. If an answer of eight symbols counts only when all are right, a model that gets
better evenly looks as if it had woken up. So take models of growing compute, and
measure each by three rulers ([`minillm.labs.digits`][]):

<div class="figure" markdown>

--8<-- "images/lab-digits.svg"

</div>

On the *code*, a table learned by heart, they are right. The left ruler stays at zero
and then shoots up; by the other two the same models improve from the start. And nothing
is left to explain: the share of right answers is $p^k$, the share of right symbols to
the power of their number (the crosses).

>>> code = [r for r in committed(LABS["digits"]) if r["config"]["task"] == "code"]
>>> def last(r):
...     return dict(zip(("step", "answers", "symbols", "ln"), r["curve"][-1]))
>>> max(abs(last(r)["answers"] - last(r)["symbols"] ** 8) for r in code) < 0.04
True
>>> few = [r for r in code if last(r)["answers"] < 0.01]
>>> max(last(r)["symbols"] for r in few) > 0.3
True

On *sums* both readings hold a part of the truth. The crosses lie near the line again,
so the left ruler does sharpen the picture. But the smooth rulers have a plateau here,
too, and a step: a model must find out which digits to add, and until it has, none of
the sums gets better. One and the same configuration, at one and the same compute, has
found it with some seeds and not with others:

>>> lucky = [
...     last(r)["symbols"]
...     for r in committed(LABS["digits"])
...     if (r["config"]["task"], r["config"]["width"]) == ("sums", 16)
...     and r["config"]["steps"] == 800
... ]
>>> min(lucky) < 0.35, max(lucky) > 0.9
(True, True)

A ruler cannot make that.

And the jump of section 1 was measured in nats, the smoothest ruler there is. So: a jump
in exact match alone proves nothing. Look at the likelihood of the right answer. If that
is flat and then falls, something formed.

# 5. What does carry over

The loss on ordinary text adds up very many skills. Each may jump at a compute of its
own; a sum of many small jumps is a slope. Three small budgets, each spent on four
sizes, at two seeds each, fix a line through the best sizes. Then the largest is
trained, last, three times, with ten times the largest of these budgets, and at the size
that the small ones suggest ([`minillm.labs.scaling`][]):

<div class="figure" markdown>

--8<-- "images/lab-scaling.svg"

</div>

>>> told = forecast(committed(LABS["scaling"]))
>>> loss, low, high = told.law.at(told.budget)
>>> print(f"predicted {loss:.3f}, between {low:.3f} and {high:.3f}")
predicted 3.314, between 3.172 and 3.463
>>> print("came", *(round(outcome, 3) for outcome in told.outcomes))
came 3.168 3.167 3.179

All came out better than the line says, two of three a hair outside the interval: three
budgets do not fix a line well, and an interval that trusts the line to be straight does
not know of bends. That is an error, and it is stated. Now compare what each forecast
was worth, this one over ten times the compute and that of section 1 over eight times.
Of how far the loss fell below the best that had been seen, this much was foreseen:

>>> seen = min(loss for *_, loss in told.bests)
>>> print(f"text: {(seen - loss) / (seen - mean(told.outcomes)):.0%}")
text: 78%
>>> now, then = (mean(within(r, budget) for r in runs) for budget in (poor, rich))
>>> print(f"skill: {(now - law.at(rich).loss) / (now - then):.0%}")
skill: 20%

# The moral

Loss extrapolates; abilities do not. From small models you may predict, roughly, how
well a large one will guess the next token of a text, and what it will cost. You may not
conclude from "it cannot" that a larger one cannot, nor, of course, that it can: that a
curve is flat tells nothing about whether it will stay so. When you report that
something does not work, report with it the compute at which you looked.

# Your turn

Three questions, each answered by changing one argument. Minutes are for two cores that
have nothing else to do.

1. *Do more states make the plateau longer?* The unigram line is then further from the
   bigram line, but each pair is seen less often.
   `minillm lab context --quick --set states=5`: 2 minutes.
2. *Is one layer only slow?* Give the quick lab four times the steps.
   `minillm lab context --quick --set layers=1 --set steps=4800`: 3 minutes.
3. *Does a budget find the code's jump?* Guess first which models remain, and what you
   would have reported. `minillm lab digits --quick --budget 1.5e10`: 1 minute.

# What we leave out

One recipe for all: one learning rate for each lab, no search. Another would move the
jumps, and some models that stayed flat might fall. Sizes differ by a hundred, not by a
million, and the tasks are made up; in return every model could be trained several
times.

# References

Anderson 1972, *More is different*, Science 177. Edelman et al. 2024, arXiv:2402.11004.
Hoffmann et al. 2022, arXiv:2203.15556. Kaplan et al. 2020, arXiv:2001.08361. Olsson et
al. 2022, arXiv:2209.11895. Schaeffer et al. 2023, arXiv:2304.15004. Wei et al. 2022,
arXiv:2206.07682.
"""

from typing import Any

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

    Examples:
        >>> run = {"config": {"steps": 4}, "flops": 200, "curve": [[2, 0.9], [4, 0.7]]}
        >>> within(run, 150)
        0.9
    """
    return [loss for flops, loss in curve(result) if flops <= budget][-1]
