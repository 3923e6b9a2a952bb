r"""What loss means what text: the same prompt at several losses.

**The question.** A loss of 4.2 nats per token: is that good? The number alone does not
say. Here is what the demo's model writes during training, each time from the same
prompt with the same seed, and its loss on held-out text at that step. The baselines on
the same text stand between.

--8<-- "images/data/milestones.md"

The loss falls fast while the model learns which tokens are frequent, of which a reader
notices little, and slowly while its sentences become better. And no loss of this size
is "understanding": the model was trained on a hundred tales, and writes what sounds
like them.

Losses per token compare only between models with one tokenizer; with another, compare
the bits per byte ([`bits_per_byte`][minillm.training.loss.bits_per_byte] says why). The
samples are made by `python -m minillm.drawing.figures --recompute`, which trains the
demo.

**Before this:** [`minillm.training.loss`][]. **See also:** [`minillm.runs.demo`][].
"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from minillm.generate import generate
from minillm.model import TransformerLM
from minillm.runs.demo import Text
from minillm.runs.display import SAMPLING
from minillm.training.loop import Progress
from minillm.training.loss import evaluate, perplexity

__all__ = ["Milestones", "milestones_text"]

PROMPT = "Once upon a time"


class Milestones:
    r"""A watcher of the demo: at certain steps it evaluates and samples the model.

    Args:
        steps: at which steps; the last step of a run may be among them.
        max_new_tokens: how much it writes.

    Attributes:
        samples: for each: step, nats per token, bits per byte, and the text.
    """

    def __init__(self, steps: Sequence[int], max_new_tokens: int = 60) -> None:
        self.steps, self.max_new_tokens = frozenset(steps), max_new_tokens
        self.samples: list[dict[str, Any]] = []

    def __call__(self, model: TransformerLM, text: Text, progress: Progress) -> None:
        """Evaluate and sample the model if it is one of the steps.

        Args:
            model: the model, in the middle of its training.
            text: what it is trained and evaluated on.
            progress: how far it is.
        """
        if progress.step not in self.steps:
            return
        loss = evaluate(model, text.unseen)
        ids = generate(
            model,
            text.tokenizer.encode(PROMPT),
            self.max_new_tokens,
            **SAMPLING,
            seed=0,
        )
        self.samples.append({
            "step": progress.step,
            "loss": round(loss, 3),
            "bits": round(text.bits(loss), 3),
            "text": PROMPT + text.tokenizer.decode(ids),
        })


def milestones_text(
    samples: Sequence[Mapping[str, Any]], baselines: Mapping[str, float]
) -> str:
    r"""Write the samples down as Markdown, in falling order of the loss.

    Args:
        samples: as collected by [`Milestones`][minillm.runs.milestones.Milestones].
        baselines: name to bits per byte.

    Returns:
        One paragraph and one block for each sample, and one line for each baseline.

    Examples:
        >>> sample = {"step": 7, "loss": 2.0, "bits": 1.0, "text": "Once\n\x07a time"}
        >>> print(milestones_text([sample], {"counting": 1.5}))
        *Counting: 1.50 bits per byte.*
        <BLANKLINE>
        **Step 7: 2.00 nats per token, perplexity 7, 1.00 bits per byte**
        <BLANKLINE>
        ```text
        Once
        ·a time
        ```
    """
    parts = [
        (bits, f"*{name[0].upper()}{name[1:]}: {bits:.2f} bits per byte.*")
        for name, bits in baselines.items()
    ]
    for sample in samples:
        # An untrained model also writes bytes that are not printable.
        shown = "".join(
            c if c.isprintable() or c == "\n" else "·" for c in sample["text"]
        ).replace("`", "'")
        lines = [textwrap.fill(line, 76) for line in shown.splitlines()]
        head = (
            f"**Step {sample['step']:,}: {sample['loss']:.2f} nats per token, "
            f"perplexity {perplexity(sample['loss']):,.0f}, "
            f"{sample['bits']:.2f} bits per byte**"
        )
        parts.append((sample["bits"], "\n".join([head, "", "```text", *lines, "```"])))
    parts.sort(key=lambda part: -part[0])
    return "\n\n".join(part for _, part in parts)
