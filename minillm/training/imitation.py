r"""Supervised fine-tuning: the loss on what shall be imitated.

**The question.** A demonstration is a problem and its answer, one text. The model shall
learn to write the answer, not the problem. How is the rest kept out of the loss?

By a mask beside the ids, True on the tokens that are learned. Three things go wrong
with it, and none of them stops the loss from falling:

- *Off by one.* The model predicts the *next* token, so mask and ids are shifted
  together: `targets = ids[:, 1:]`, and `mask[:, 1:]`.
- *Without the end.* The token that ends an answer has to be learned, or the model never
  stops.
- *Padding.* Texts of different lengths are padded to one, and padding is not learned.

# What is forgotten

Thirty demonstrations of "write a sentence with this word" for a small model of the
fairy tales ([`minillm.labs.forgetting`][]). The loss on unseen tales before and after,
in nats per token, and how often an answer is one sentence with the word that was asked
for, three seeds each:

>>> from minillm.labs.forgetting import runs
>>> for name in ("demonstrations", "a quarter old"):
...     for r in runs(name):
...         print(f"{name}: {r['before']:.2f}, {r['after']:.2f}; {r['seen']:.2f}")
demonstrations: 4.87, 8.10; 0.30
demonstrations: 4.84, 8.01; 0.07
demonstrations: 4.87, 8.03; 0.33
a quarter old: 4.87, 4.97; 0.03
a quarter old: 4.84, 4.97; 0.00
a quarter old: 4.87, 4.92; 0.02

Three nats are lost, though the tales are what the demonstrations are made of. If a
quarter of each batch is old text (*rehearsal*: Robins 1995), about a tenth of a nat is
lost. At equal compute it is not free: fewer demonstrations were read, and the word that
was asked for is hardly ever there. (Words that no demonstration asks for succeed in one
or two of a hundred answers, if at all, with both.)

**Before this:** [`minillm.posttraining`][].
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

from minillm.training.loss import cross_entropy

__all__ = ["sft_loss"]


def sft_loss(
    logits: Float[Tensor, "batch seq vocab"],
    targets: Int[Tensor, "batch seq"],
    mask: Bool[Tensor, "batch seq"],
) -> Float[Tensor, ""]:
    r"""Cross-entropy over the tokens that are learned, and no others.

    Args:
        logits: the model's, for each position.
        targets: the token that comes next at each position.
        mask: True where the *target* is to be learned: the answer and the token that
            ends it. It is shifted like the targets, `mask[:, 1:]` for `ids[:, 1:]`.

    Returns:
        The mean over all learned tokens of the batch: a long answer weighs more than a
        short one.

    Raises:
        ValueError: if no token is learned.

    Examples:
        What stands outside the mask does not count, right or wrong:

        >>> import torch
        >>> logits, mask = torch.randn(2, 3, 5), torch.tensor([[0, 1, 1], [0, 0, 1]])
        >>> a = sft_loss(logits, torch.tensor([[4, 1, 2], [0, 0, 3]]), mask.bool())
        >>> b = sft_loss(logits, torch.tensor([[0, 1, 2], [1, 2, 3]]), mask.bool())
        >>> torch.equal(a, b)
        True

        A batch in which all answers were cut off has nothing to learn. The mean over
        nothing is not a number, and one step with it would ruin every weight:

        >>> torch.tensor([]).mean().item()
        nan
        >>> sft_loss(logits, torch.zeros(2, 3).long(), torch.zeros(2, 3).bool())
        Traceback (most recent call last):
        ValueError: no token of the batch is learned: leave the batch out
    """
    if not mask.any():
        raise ValueError("no token of the batch is learned: leave the batch out")
    return cross_entropy(logits[mask], targets[mask])
