r"""What is shown while a model learns: a bar, the loss, the throughput, the time left.

It brings the numbers of [`Progress`][minillm.training.loop.Progress] to a terminal
through the library `rich`. MFU is the share of the FLOPs that this machine could do
([`minillm.flops.mfu`][]).

`rich` reads square brackets in a string as markup and `:fire:` as an emoji. So whatever
a user or a model has written is printed as `rich.text.Text`, which is shown as it is.
"""

import math
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from minillm.flops import mfu
from minillm.training.loop import Progress

__all__ = ["SAMPLING", "training_display"]

SAMPLING: Final = {"temperature": 0.8, "top_p": 0.95}
"""How a run samples the text that it shows."""

# The throughput is that of the last steps, which forgives a slow first one.
WINDOW = 50


@contextmanager
def training_display(
    console: Console, steps: int, n_tokens: float, flops: float, peak_flops: float
) -> Generator[Callable[[Progress], None], None, None]:
    """Show a progress bar for as long as the block runs.

    Args:
        console: where.
        steps: how many there are.
        n_tokens: how many tokens a step reads.
        flops: how many FLOPs it takes.
        peak_flops: FLOP/s of all processes together, at best.

    Yields:
        A function to call after each step.
    """
    columns = (
        TextColumn("step {task.completed}/{task.total}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    )
    times: deque[tuple[int, float]] = deque(maxlen=WINDOW + 1)
    smooth = math.nan
    # Drawing costs about as much as a step of a very small model, so: not often.
    with ProgressBar(*columns, console=console, refresh_per_second=4) as bar:
        task = bar.add_task("training", total=steps, figures="")

        def show(p: Progress) -> None:
            nonlocal smooth
            smooth = p.loss if math.isnan(smooth) else 0.95 * smooth + 0.05 * p.loss
            times.append((p.step, p.seconds))
            (first, before), (last, now) = times[0], times[-1]
            rate = (last - first) / (now - before) if last > first else 1 / p.seconds
            figures = (
                f"loss {smooth:.3f}  {rate * n_tokens:,.0f} tokens/s  "
                f"MFU {mfu(flops * rate, 1, peak_flops):.0%}"
            )
            bar.update(task, completed=p.step, figures=figures)

        yield show
