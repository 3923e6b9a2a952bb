r"""Bad loss curves: what went wrong here?

**The question.** A training runs for an hour or a month, and most of what you see of it
is one curve. Can you tell from its shape that something is wrong, and what?

Below are seven runs with one mistake each. All train the same model of 140,000 weights,
whose tokens are bytes, for 120 steps: a few seconds on one core. The line is the loss
on the batches, the dots that on 2,048 bytes of a tale that is held out. Dashed are two
baselines that only count ([`minillm.training.baselines`][]). First the run without a
mistake, which is grey in the other pictures:

<div class="figure" markdown>

--8<-- "images/curve-0.svg"

</div>

This is how a curve should look. A fresh model starts near the uniform baseline, 8 bits
for a byte, falls steeply past the unigram baseline, and then ever more slowly. Both
losses fall together, since the run sees too little of the text twice to memorize it.

Say what went wrong before you open an answer.

# A

<div class="figure" markdown>

--8<-- "images/curve-a.svg"

</div>

??? note "What went wrong?"

    **The targets are not shifted.** At each position the model is asked for the token
    that it has just read, and copying is easy: both losses go to zero. A loss that is
    too good is a mistake until it is explained. The held-out text gives no warning,
    since its targets come from the same code.

# B

<div class="figure" markdown>

--8<-- "images/curve-b.svg"

</div>

??? note "What went wrong?"

    **The learning rate is too high**, twelve times that of the sound run. Each step
    overshoots. The loss stays near the unigram baseline: even with such steps the model
    learns how frequent each byte is, but hardly what follows what. Divide the learning
    rate by three until the curve comes down.

# C

<div class="figure" markdown>

--8<-- "images/curve-c.svg"

</div>

??? note "What went wrong?"

    **Overfitting.** The text has 1,000 bytes, and the run reads it 46 times. The line
    goes on falling; the dots do not follow, and in the end they rise. The best model is
    that of the lowest dot; more text, or fewer passes, would help.

# D

<div class="figure" markdown>

--8<-- "images/curve-d.svg"

</div>

??? note "What went wrong?"

    **No warm-up**, at two and a half times the rate of the sound run. AdamW's first
    step moves every weight by the full rate, however small its gradient. The loss falls
    fast and then stays near the unigram baseline for a quarter of the run. What
    that costs is left to chance, as the table below shows. B and D look alike: a
    warm-up allows a higher rate, not any rate.

# E

<div class="figure" markdown>

--8<-- "images/curve-e.svg"

</div>

??? note "What went wrong?"

    **A leak.** This is run C with the validation text added to its training text. The
    model reads it 15 times, and the dots fall below those of the sound run, which reads
    a far larger text. A small text, many passes and *no* gap between the losses do not
    go together: look for the validation text in the training text
    ([`minillm.corpus.contamination`][] does).

# F

<div class="figure" markdown>

--8<-- "images/curve-f.svg"

</div>

??? note "What went wrong?"

    **No shuffling.** The text is 9,216 bytes of tales and then as many of numbers, and
    it is read from beginning to end, again and again. Whenever the source changes, the
    loss jumps; while numbers are read, the model forgets the tales, and the dots rise.
    The curve has the period of the text, here 48 steps, and that gives it away.

# G

<div class="figure" markdown>

--8<-- "images/curve-g.svg"

</div>

??? note "What went wrong?"

    **The targets are shifted twice.** The model learns to predict the token after the
    next one. (A library that shifts the targets itself, given targets that are shifted
    already, does this.) Nothing in the shape is wrong. Only the height is: the curve
    stays near the unigram baseline, where the sound one is near the bigram baseline.
    Without a baseline beside it, this curve looks like that of a hard text.

# By numbers, and by chance

One run of each kind is shown; here are three seeds of all, and of two more to compare
with. In bits per byte, lowest to highest: the mean over the last five batches, and the
loss on the held-out text after the last step.

>>> for name, runs in committed().items():
...     row = f"{name:13}"
...     for part in ("training", "validation"):
...         ends = [run[part][-1][1] for run in runs]
...         row += f"  {min(ends):.2f} to {max(ends):.2f}"
...     print(row)
sound          3.39 to 3.46  3.46 to 3.53
unshifted      0.02 to 0.05  0.05 to 0.06
rate           3.87 to 4.09  3.89 to 4.12
overfitting    2.23 to 2.44  3.94 to 4.16
no warm-up     3.60 to 3.85  3.66 to 3.93
leak           3.09 to 3.23  3.09 to 3.27
in order       4.42 to 4.90  4.49 to 5.07
shifted twice  4.06 to 4.17  4.13 to 4.18
warm-up        3.51 to 3.63  3.57 to 3.70
shuffled       2.91 to 3.22  3.69 to 3.76

Only D depends on the seed; every other shape comes with all three.

**Before this:** [`minillm.train`][]. **Next:** [`minillm.runs.milestones`][].
"""

from typing import Any

from minillm.files.reading import IMAGES, read_json

__all__ = ["committed"]


def committed() -> dict[str, list[dict[str, list[list[float]]]]]:
    """Read the committed curves.

    Returns:
        For each case those of its seeds, 0 first, as
        [`record`][minillm.training.mistakes.record] gives them.

    Examples:
        >>> len(committed()["sound"])
        3
    """
    runs: dict[str, Any] = read_json(IMAGES / "data" / "curves.json")["runs"]
    return runs
