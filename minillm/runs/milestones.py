r"""What loss means what text: the same prompt at several losses.

**The question.** A loss of 4.2 nats per token: is that good? Nobody can tell from the
number. Here is what the demo's model writes while it learns, each time from the same
prompt with the same seed, and how well it predicts unseen text at that moment. What
counting achieves on the same text stands between, as a measure.

--8<-- "images/data/milestones.md"

The loss falls fast where a reader gains little (which tokens are frequent) and slowly
where the gain is great. And no loss of this size is "understanding": the model has read
a hundred tales, and writes what sounds like them.

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
from minillm.runs.demo import SAMPLING, Text
from minillm.train import Progress
from minillm.training.loss import evaluate, perplexity

__all__ = ["Milestones", "milestones_text"]

PROMPT = "Once upon a time"


class Milestones:
    r"""A watcher of the demo: at certain steps it examines the model and lets it write.

    Args:
        steps: at which steps; the last step of a run may be among them.
        max_new_tokens: how much it writes.

    Attributes:
        samples: what was found: step, nats per token, bits per byte, and the text.
    """

    def __init__(self, steps: Sequence[int], max_new_tokens: int = 60) -> None:
        self.steps, self.max_new_tokens = frozenset(steps), max_new_tokens
        self.samples: list[dict[str, Any]] = []

    def __call__(self, model: TransformerLM, text: Text, progress: Progress) -> None:
        """Look at the model if it is time to.

        Args:
            model: the model, in the middle of its training.
            text: what it learns from and is examined with.
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
        baselines: what counting achieves, name to bits per byte.

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
        # A model that has learned nothing also writes bytes that no screen shows.
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
