r"""Hours and dollars: what a number of FLOPs costs.

**The question.** A chip has a peak in FLOP/s, printed in its data sheet. Divide
the FLOPs of a training run by it and you have the time. Why does nobody ever train as
fast as that, and how far off are the best?

>>> from minillm.accounting.shapes import param_count, preset
>>> flops = 6 * param_count(preset("llama2-7b")).total * 2e12
>>> print(f"{flops / CHIPS['a100'].peak_flops / 3600:,.0f} hours at the peak")
71,992 hours at the peak
>>> print(f"{mfu(flops, 184_320 * 3600, CHIPS['a100'].peak_flops):.1%} of it, in fact")
39.1% of it, in fact

The second line uses the hours that Meta announced for Llama 2 7B. Three fifths of what
the chips could have done was lost: waiting for memory and for other chips, in work that
is not counted, in machines that failed. The fraction has a name, *model FLOPs
utilization*, and it is the honest way to say how well hardware is used, because it
counts what the model needs and not what the program did.

Below stand the utilization, the runs that were announced, the split of a budget, and
its price in hours and dollars. Why a chip must wait is the next page.

**Before this:** [`minillm.accounting.memory`][]. **Next:**
[`minillm.accounting.roofline`][].
"""

from dataclasses import asdict, dataclass
from math import sqrt
from typing import NamedTuple

from minillm.accounting.shapes import check_positive, check_sizes, param_count, preset

__all__ = [
    "CHIPS",
    "PUBLISHED_RUNS",
    "Chip",
    "PublishedRun",
    "TrainingCost",
    "compute_optimal",
    "mfu",
    "palm_flops_per_token",
    "training_cost",
]


class Chip(NamedTuple):
    """What the maker announces for an accelerator.

    Attributes:
        peak_flops: FLOP/s for dense products of 16-bit numbers.
        bandwidth: bytes/s between the chip and its memory.
        memory: bytes of memory.
        source: where the figures stand.
    """

    peak_flops: float
    bandwidth: float
    memory: float
    source: str


CHIPS: dict[str, Chip] = {
    "a100": Chip(312e12, 2.039e12, 80e9, "NVIDIA A100 80GB SXM data sheet"),
    "h100": Chip(989.4e12, 3.35e12, 80e9, "NVIDIA Hopper white paper, H100 SXM sheet"),
    "h200": Chip(989.4e12, 4.8e12, 141e9, "the same peak, and NVIDIA H200 SXM sheet"),
    "h800": Chip(989.4e12, 3.35e12, 80e9, "an H100 with slower links between chips"),
    "b200": Chip(2.25e15, 8e12, 180e9, "NVIDIA HGX B200 data sheet, an eighth of it"),
    "tpu-v4": Chip(275e12, 1.2e12, 34.4e9, "Google Cloud TPU v4 documentation"),
    "tpu7x": Chip(2.307e15, 7.38e12, 206e9, "Google Cloud TPU7x documentation"),
}
"""Accelerators by name, as announced. Data sheets like to print twice these peaks, for
matrices of which half the entries are zero; those of a language model are not."""


def mfu(flops: float, seconds: float, peak_flops: float) -> float:
    r"""Say what fraction of the peak a computation reached.

    $$\text{MFU} = \frac{\text{FLOPs that the model needs}}
    {\text{seconds} \times \text{peak FLOP/s}}$$

    What counts are the FLOPs that the *model* needs: forward and backward, without
    recomputation. A program that computes everything twice is not twice as good. With
    recomputation counted, the figure is called *hardware* FLOPs utilization, HFU, and
    is larger; papers that give one figure do not always say which.

    Args:
        flops: what the model needed, for example
            [`training_flops`][minillm.flops.training_flops] for one step.
        seconds: how long it took; for several chips, the sum of their times.
        peak_flops: FLOP/s that one chip could do. There is no default: a program that
            assumes its author's chip reports more than 100 % on a newer one.

    Returns:
        The fraction. More than 1 means that one of the three is wrong.

    Raises:
        ValueError: if a figure is not positive.

    Examples:
        >>> mfu(flops=3e14, seconds=2, peak_flops=300e12)
        0.5

        OPT-175B ran at 147 TFLOP/s on each A100, recomputation included. So the first
        figure is an HFU, and dividing by what recomputation adds gives the MFU:

        >>> from minillm.flops import training_flops
        >>> opt = preset("opt-175b")
        >>> added = training_flops(opt, 1, 2048, "full") / training_flops(opt, 1, 2048)
        >>> hfu = mfu(147e12, seconds=1, peak_flops=CHIPS["a100"].peak_flops)
        >>> print(f"{hfu:.1%} {hfu / added:.1%}")
        47.1% 35.4%

        The peak is the figure that a run cannot measure, and must be given:

        >>> mfu(flops=3e14, seconds=2, peak_flops=0)
        Traceback (most recent call last):
        ValueError: peak_flops must be above zero and finite; got 0
    """
    check_positive(flops=flops, seconds=seconds, peak_flops=peak_flops)
    return flops / (seconds * peak_flops)


def palm_flops_per_token(
    n_params: float, n_layers: int, n_heads: int, d_head: int, seq_len: int
) -> float:
    r"""Count the FLOPs of training on one token, by the formula of PaLM.

    $$6N + 12\,L\,H\,Q\,T$$

    with $Q$ their letter for the width of a head. It is $6ND$ with the scores of
    attention added: forward they cost $4T \cdot HQ$ a token and layer, and three times
    that with the backward pass.

    Args:
        n_params: $N$, all parameters.
        n_layers: $L$.
        n_heads: $H$.
        d_head: $Q$.
        seq_len: $T$.

    Returns:
        FLOPs for each token.

    Raises:
        ValueError: if a figure is not positive.

    Examples:
        PaLM has 540 billion parameters and read 238,300 tokens a second on 6144 chips
        of 275 TFLOP/s. Its authors announce 45.7 % without attention, 46.2 % with it
        (Chowdhery et al. 2022, arXiv:2204.02311, appendix B):

        >>> per_token = palm_flops_per_token(540e9, 118, 48, 256, 2048)
        >>> print(f"{mfu(238.3e3 * per_token, 1, 6144 * 275e12):.1%}")
        46.2%
        >>> print(f"{mfu(238.3e3 * 6 * 540e9, 1, 6144 * 275e12):.1%}")
        45.7%
    """
    check_positive(n_params=n_params)
    check_sizes(n_layers=n_layers, n_heads=n_heads, d_head=d_head, seq_len=seq_len)
    return 6 * n_params + 12 * n_layers * n_heads * d_head * seq_len


class PublishedRun(NamedTuple):
    """A training run for which the makers announced tokens and hours.

    Attributes:
        model: the name of its preset, or of the model if there is none.
        tokens: how many tokens were read.
        chip_hours: chips times hours.
        chip: the name of the chip.
        source: where the figures stand.
        active: parameters that each token meets, where no preset counts them.

    Examples:
        What the announcements imply:

        >>> for run in PUBLISHED_RUNS:
        ...     print(f"{run.model:12}{run.mfu:6.1%} of {run.chip}")
        llama2-7b    39.1% of a100
        llama2-13b   37.7% of a100
        llama2-70b   42.8% of a100
        llama3-8b    13.9% of h100
        llama3-70b   25.5% of h100
        llama3-405b  34.6% of h100
        deepseek-v3  34.6% of h800

        Implied by the *total* of hours, that is: it holds restarts and whatever else
        was booked on the model. For the steady state of the largest, the paper gives 38
        to 43 % (arXiv:2407.21783, section 3.3.2). DeepSeek-V3 is a mixture of experts:
        of its 671 billion parameters, each token meets 37. It made most of its products
        in 8 bits, of which the chip does twice as many in a second, so against *that*
        peak it reached half of the figure (arXiv:2412.19437, section 3.3).
    """

    model: str
    tokens: float
    chip_hours: float
    chip: str
    source: str
    active: float | None = None

    @property
    def mfu(self) -> float:
        """What 6ND and the total of hours imply."""
        active = self.active or param_count(preset(self.model)).active
        flops = 6 * active * self.tokens
        return mfu(flops, self.chip_hours * 3600, CHIPS[self.chip].peak_flops)


_LLAMA2 = "announced: Llama 2 model card, hours and 2.0T tokens"
_LLAMA3 = "announced: Llama 3.1 model card, hours and ~15T tokens"
_LLAMA3_405B = "announced: hours, model card; 15.6T tokens, arXiv:2407.21783"
_DEEPSEEK = "announced: pre-training alone, arXiv:2412.19437, table 1 and section 4"
PUBLISHED_RUNS: tuple[PublishedRun, ...] = (
    PublishedRun("llama2-7b", 2e12, 184_320, "a100", _LLAMA2),
    PublishedRun("llama2-13b", 2e12, 368_640, "a100", _LLAMA2),
    PublishedRun("llama2-70b", 2e12, 1_720_320, "a100", _LLAMA2),
    PublishedRun("llama3-8b", 15e12, 1.46e6, "h100", _LLAMA3),
    PublishedRun("llama3-70b", 15e12, 7.0e6, "h100", _LLAMA3),
    PublishedRun("llama3-405b", 15.6e12, 30.84e6, "h100", _LLAMA3_405B),
    PublishedRun("deepseek-v3", 14.8e12, 2.664e6, "h800", _DEEPSEEK, active=37e9),
)
"""Training runs with announced tokens and hours."""


def compute_optimal(flops: float) -> tuple[float, float]:
    r"""Split a budget between parameters and tokens, by Chinchilla's rule of thumb.

    With $C = 6ND$ and about twenty tokens for each parameter, $D = 20N$, the budget is
    $C = 120N^2$ (Hoffmann et al. 2022, arXiv:2203.15556, section 3; the ratio is read
    off their table 3, and is a fit, not a law).

    Args:
        flops: $C$, the budget.

    Returns:
        $N$ and $D$.

    Raises:
        ValueError: if the budget is not positive.

    Examples:
        Their budget, that of Gopher, was $5.76 \cdot 10^{23}$ FLOPs:

        >>> n, d = compute_optimal(5.76e23)
        >>> print(f"{n / 1e9:.1f} billion parameters, {d / 1e12:.2f} trillion tokens")
        69.3 billion parameters, 1.39 trillion tokens

        Their table has 67 billion and 1.5 trillion for it, and they trained 70 billion
        on 1.4 trillion. By $6ND$ that is a little more than the budget, but their own
        count is a finer one (appendix F):

        >>> print(f"{6 * 70e9 * 1.4e12:.2e}")
        5.88e+23
    """
    check_positive(flops=flops)
    n_params = sqrt(flops / 120)
    return n_params, 20 * n_params


@dataclass(frozen=True)
class TrainingCost:
    """What a number of FLOPs costs on given hardware at a given price.

    Attributes:
        chip_hours: chips times hours.
        days: how long all chips together take.
        dollars: what the chip-hours cost.
    """

    chip_hours: float
    days: float
    dollars: float

    def as_dict(self) -> dict[str, float]:
        """The three figures, under their names."""
        return asdict(self)


def training_cost(
    flops: float,
    *,
    peak_flops: float,
    utilization: float,
    n_chips: int = 1,
    dollars_per_chip_hour: float,
) -> TrainingCost:
    r"""Turn FLOPs into chip-hours, days and dollars.

    $$\text{chip-hours} = \frac{\text{FLOPs}}
    {\text{peak} \cdot \text{utilization} \cdot 3600}$$

    Nothing here has a default but the number of chips: each assumption moves the result
    in proportion, so each must be somebody's.

    Args:
        flops: what is to be computed.
        peak_flops: FLOP/s of one chip.
        utilization: the fraction of it that will be reached, in (0, 1].
        n_chips: how many work side by side.
        dollars_per_chip_hour: what one chip costs for an hour.

    Returns:
        Chip-hours, days and dollars.

    Raises:
        ValueError: if a figure is not positive, or the utilization is above 1.

    Examples:
        GPT-3, if it were trained on 1024 A100s at 40 %, at two dollars an hour:

        >>> cost = training_cost(
        ...     3.14e23,
        ...     peak_flops=CHIPS["a100"].peak_flops,
        ...     utilization=0.4,
        ...     n_chips=1024,
        ...     dollars_per_chip_hour=2.0,
        ... )
        >>> print(f"{cost.days:.0f} days, {cost.dollars / 1e6:.1f} million dollars")
        28 days, 1.4 million dollars
    """
    check_positive(
        flops=flops,
        peak_flops=peak_flops,
        utilization=utilization,
        dollars_per_chip_hour=dollars_per_chip_hour,
    )
    check_sizes(n_chips=n_chips)
    if utilization > 1:
        raise ValueError(
            f"utilization is a fraction of the peak, at most 1; got {utilization}: "
            "write 40 % as 0.4"
        )
    chip_hours = flops / (peak_flops * utilization * 3600)
    return TrainingCost(
        chip_hours=chip_hours,
        days=chip_hours / n_chips / 24,
        dollars=chip_hours * dollars_per_chip_hour,
    )
