r"""A learned reward: a model that has seen which of two answers is better.

**The question.** Where no program can check an answer, people are shown pairs, and a
*reward model* learns to agree with them: a model of the same kind as the policy, with a
number at the end of each answer instead of a next token. From then on it is asked
instead of people, a hundred thousand times. It agrees with them on answers like those
that it has seen. Does it on those that a policy makes up to please it?

By the formula of Bradley and Terry ([`minillm.training.preferences`][]), the loss of a
pair is $-\ln \sigma(r(y_w) - r(y_l))$, with $r$ the number given to the chosen and to
the rejected answer ([`Judge.learn`][minillm.labs.judges.Judge.learn]).

**No.** The judge of the bench has seen 512 pairs of right and wrong answers to sorting
problems, and prefers the right one in four of five other pairs, with each seed:

>>> from minillm.labs.posttraining import runs
>>> [round(r["agreement"], 2) for r in runs("learned reward")]
[0.82, 0.8, 0.8]

Then a policy is trained by its reward for sixty rounds. The KL divergence from the
start in nats per answer, the reward, and the share of right answers, in rounds 1, 10
and 60:

>>> for r in runs("learned reward"):
...     rounds = {row[0]: row for row in r["curve"]}
...     some = (rounds[i] for i in (1, 10, 60))
...     print(*((round(row[4]), round(row[1], 1), round(row[2], 1)) for row in some))
(0, -1.1, 0.3) (4, 0.9, 0.2) (17, 5.9, 0.0)
(0, 1.2, 0.3) (5, 1.9, 0.2) (19, 6.0, 0.0)
(0, 0.2, 0.6) (6, 0.4, 0.2) (20, 5.4, 0.0)

The reward rises and the truth falls: the policy leaves the answers on which judge and
truth agree, since others please the judge more. *When a measure becomes a target, it
ceases to be a good measure*; that is Goodhart's law. In large models the truth rises
first and falls later (Gao et al. 2022, arXiv:2210.10760, figure 1). With this judge it
never rises for long: in the first six rounds,

>>> for r in runs("learned reward"):
...     print(*(f"{row[2]:.2f}" for row in r["curve"] if row[0] <= 6))
0.28 0.41 0.33 0.29 0.22 0.40
0.30 0.33 0.32 0.35 0.30 0.37
0.59 0.54 0.38 0.51 0.30 0.27

**Used by** [`minillm.labs.learners`][].
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from minillm.labs.answers import END
from minillm.model import TransformerLM
from minillm.train import AdamW, clip_gradients, cosine_schedule

__all__ = ["BATCH", "JUDGED", "STEPS", "Judge"]

BATCH = 64
"""Pairs in a step."""
STEPS = 200
"""Steps of learning from the pairs."""
JUDGED = 1000
"""To so many prompts answers are sampled, to make pairs of."""
Side = tuple[Int[Tensor, "n seq"], Bool[Tensor, "n seq"]]


class Judge:
    """A reward model.

    Args:
        start: the model whose weights it starts from; not changed.

    Attributes:
        model: the reward model.

    Examples:
        >>> from minillm.labs.answers import pack
        >>> from minillm.labs.learners import shape
        >>> judge = Judge(TransformerLM(shape("sort")))
        >>> right = pack("sort", [("593214:", "123459.")] * 8)
        >>> wrong = pack("sort", [("593214:", "1234599")] * 8)
        >>> judge.learn(right, wrong, torch.Generator().manual_seed(0), steps=50)
        >>> judge.agreement(right, wrong)
        1.0
    """

    def __init__(self, start: TransformerLM) -> None:
        self.model = TransformerLM(start.config)
        self.model.load_state_dict(start.state_dict())

    def scores(
        self, ids: Int[Tensor, "n seq"], mask: Bool[Tensor, "n seq"]
    ) -> Float[Tensor, " n"]:
        """Read each answer to its end, and give it a number.

        Args:
            ids: prompts and answers, padded at the end.
            mask: True on the answer, at least one token of it.

        Returns:
            The rewards. Only their differences mean something.
        """
        last = (torch.arange(ids.shape[1]) * mask).argmax(1)
        # No further matrix: the logit of one token serves as the number.
        return self.model(ids)[torch.arange(len(ids)), last, END]

    def learn(
        self, chosen: Side, rejected: Side, random: torch.Generator, steps: int
    ) -> None:
        """Learn from pairs.

        Args:
            chosen: ids and mask of the better answers.
            rejected: the same of the others, in the same order.
            random: chooses the pairs of each step.
            steps: how many steps.
        """
        weights = list(self.model.parameters())
        optimizer = AdamW(weights, betas=(0.9, 0.95), weight_decay=0.0)
        for step in range(1, steps + 1):
            i = torch.randint(len(chosen[0]), (BATCH,), generator=random)
            better = self.scores(chosen[0][i], chosen[1][i])
            worse = self.scores(rejected[0][i], rejected[1][i])
            loss = -F.logsigmoid(better - worse).mean()
            lr = cosine_schedule(step, 1e-3, 1e-4, 10, steps)
            optimizer.param_groups[0]["lr"] = lr
            optimizer.zero_grad()
            loss.backward()
            clip_gradients(weights, 1.0)
            optimizer.step()

    @torch.no_grad()
    def agreement(self, chosen: Side, rejected: Side) -> float:
        """Of how many pairs does it prefer the chosen answer?

        Args:
            chosen: ids and mask.
            rejected: the same of the others.

        Returns:
            The share, from 0 to 1.
        """
        better, worse = self.scores(*chosen), self.scores(*rejected)
        return (better > worse).double().mean().item()
