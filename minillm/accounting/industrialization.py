r"""Industrialization, as arithmetic: what the announcements and the rumours imply.

**The question.** Language models have become an industry that no longer says what it
makes. What can someone outside still know? More than it seems. A few figures slip out,
and figures about the same thing must agree. If you can count FLOPs, you can hold
rumours against each other, and say what would have to be true.

The GPT-4 report has a sentence for it: "Given both the competitive landscape and the
safety implications of large-scale models like GPT-4, this report contains no further
details about the architecture (including model size), hardware, training compute,
dataset construction, training method, or similar" (OpenAI 2023, arXiv:2303.08774,
section 2).

# Announced, reported, rumoured

About what is not said, figures circulate all the same. Each in this module carries its
standing. *Announced*: the maker has said so. *Reported*: the press has. *Rumour*: it is
repeated, and nobody who must know has confirmed it.

>>> for claim in CLAIMS:
...     print(f"{claim.standing:10} {claim.what}: {claim.text}")
announced  xAI Colossus: 200,000 GPUs
announced  Stargate, over four years: 500,000,000,000 dollars
announced  gpt-oss-120b, active: 5,100,000,000 parameters
announced  gpt-oss-120b run: 2,100,000 H100-hours
reported   GPT-4, at least: 100,000,000 dollars
rumour     GPT-4, in all: 1,800,000,000,000 parameters
rumour     GPT-4, active: 280,000,000,000 parameters
rumour     GPT-4, read: 13,000,000,000,000 tokens
rumour     GPT-4 cluster: 25,000 A100s
rumour     GPT-4 run: 90 to 100 days
rumour     GPT-4 utilization: 0.32 to 0.36 of the peak
rumour     GPT-4 run, at 1 dollar an A100-hour: 63,000,000 dollars

**Before this:** [`minillm.accounting.cost`][]. **Next:**
[`minillm.accounting.disclosure`][].
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from minillm.accounting.cost import TrainingCost, training_cost
from minillm.accounting.shapes import check_positive

__all__ = [
    "CLAIMS",
    "Claim",
    "across_utilizations",
    "claim",
    "cluster_flops",
]


class Claim(NamedTuple):
    """A figure about the world, with its standing and its source.

    Attributes:
        what: what the figure is about.
        low: the figure, or the lower end of a range.
        high: the upper end, the same as `low` if it is no range.
        unit: of what.
        standing: announced, reported or rumour.
        source: who said it, and when.
    """

    what: str
    low: float
    high: float
    unit: str
    standing: Literal["announced", "reported", "rumour"]
    source: str

    @property
    def text(self) -> str:
        """The figure in words."""
        span = (
            f"{self.low:,}" if self.low == self.high else f"{self.low} to {self.high}"
        )
        return f"{span} {self.unit}"


_SEMIANALYSIS = "SemiAnalysis, July 2023; behind a paywall, known from summaries"

_GPT_OSS = "OpenAI, August 2025, arXiv:2508.10925, section 2"

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "xAI Colossus",
        200_000,
        200_000,
        "GPUs",
        "announced",
        "NVIDIA, 28 October 2024: 'in the process of doubling' to 200,000 Hopper GPUs; "
        "E. Musk, 2 September 2024: 50,000 of them H200",
    ),
    Claim(
        "Stargate, over four years",
        500_000_000_000,
        500_000_000_000,
        "dollars",
        "announced",
        "OpenAI and SoftBank, 21 January 2025: 'intends to invest $500 billion'",
    ),
    Claim(
        "gpt-oss-120b, active",
        5_100_000_000,
        5_100_000_000,
        "parameters",
        "announced",
        _GPT_OSS,
    ),
    Claim(
        "gpt-oss-120b run", 2_100_000, 2_100_000, "H100-hours", "announced", _GPT_OSS
    ),
    Claim(
        "GPT-4, at least",
        100_000_000,
        100_000_000,
        "dollars",
        "reported",
        "W. Knight, Wired, 17 April 2023: 'The process cost over $100 million'",
    ),
    Claim(
        "GPT-4, in all",
        1_800_000_000_000,
        1_800_000_000_000,
        "parameters",
        "rumour",
        _SEMIANALYSIS,
    ),
    Claim(
        "GPT-4, active",
        280_000_000_000,
        280_000_000_000,
        "parameters",
        "rumour",
        _SEMIANALYSIS,
    ),
    Claim(
        "GPT-4, read",
        13_000_000_000_000,
        13_000_000_000_000,
        "tokens",
        "rumour",
        _SEMIANALYSIS,
    ),
    Claim("GPT-4 cluster", 25_000, 25_000, "A100s", "rumour", _SEMIANALYSIS),
    Claim("GPT-4 run", 90, 100, "days", "rumour", _SEMIANALYSIS),
    Claim("GPT-4 utilization", 0.32, 0.36, "of the peak", "rumour", _SEMIANALYSIS),
    Claim(
        "GPT-4 run, at 1 dollar an A100-hour",
        63_000_000,
        63_000_000,
        "dollars",
        "rumour",
        _SEMIANALYSIS,
    ),
)
"""What was announced, reported and rumoured, in this order."""


def claim(what: str) -> Claim:
    """Look up a claim by what it is about.

    Args:
        what: the words of its first field.

    Returns:
        The claim.

    Raises:
        ValueError: if there is no such claim.

    Examples:
        >>> claim("xAI Colossus").standing
        'announced'
    """
    for known in CLAIMS:
        if known.what == what:
            return known
    raise ValueError(
        f"no claim about {what!r}; there are: {'; '.join(c.what for c in CLAIMS)}"
    )


def cluster_flops(
    n_chips: float, days: float, peak_flops: float, utilization: float
) -> float:
    r"""Count the FLOPs that a cluster does in a number of days.

    Do the rumours about GPT-4 agree with each other? They describe the same work from
    two sides. From the side of the model, six FLOPs for each active parameter and
    token:

    >>> from minillm.flops import CHIPS, six_nd
    >>> model = six_nd(claim("GPT-4, active").low, claim("GPT-4, read").low)
    >>> print(f"{model:.2e}")
    2.18e+25

    From the side of the machine room, chips, days, and the fraction of their peak:

    >>> n, days = claim("GPT-4 cluster"), claim("GPT-4 run")
    >>> used = claim("GPT-4 utilization")
    >>> peak = CHIPS["a100"].peak_flops
    >>> low = cluster_flops(n.low, days.low, peak, used.low)
    >>> high = cluster_flops(n.high, days.high, peak, used.high)
    >>> print(f"{low:.2e} to {high:.2e}")
    1.94e+25 to 2.43e+25

    The first lies between the others: they agree. So do the parts of the model, sixteen
    experts of 111 billion parameters, of which each token passes two, and 55 billion
    that all tokens share:

    >>> 16 * 111 + 55, 2 * 111 + 55
    (1831, 277)

    That makes the rumours consistent and not true; anyone who invents one side can
    compute the other. Two slips show that they passed through hands that did not count.
    They have a token cost "560 TFLOPs"; two FLOPs for each active parameter are 560
    *giga*FLOPs, a thousand times less:

    >>> print(f"{2 * claim('GPT-4, active').low / 1e9:.0f} GFLOPs")
    560 GFLOPs

    And at one dollar an hour, the 63 million dollars buy 105 days of that cluster,
    where they say 90 to 100:

    >>> round(claim("GPT-4 run, at 1 dollar an A100-hour").low / (n.low * 24))
    105

    **What has changed since.** In August 2025 OpenAI published the weights of a
    language model again, for the first time since GPT-2, and with them the architecture
    and the hours: 2.1 million on H100s for a mixture of experts that meets 5.1 billion
    parameters a token. How many tokens it read stayed out, but for "trillions". Two of
    the three factors give bounds on the third, over utilizations of others: the 43 %
    that Llama 3.1 405B announced, and the 14 % that the hours of Llama 3 8B
    [imply][minillm.accounting.cost]:

    >>> hours = claim("gpt-oss-120b run").low
    >>> for utilization in (0.14, 0.43):
    ...     done = hours * 3600 * CHIPS["h100"].peak_flops * utilization
    ...     tokens = done / (6 * claim("gpt-oss-120b, active").low)
    ...     print(f"{utilization:.0%}: {tokens / 1e12:.0f} trillion tokens")
    14%: 34 trillion tokens
    43%: 105 trillion tokens

    If the hours are those of pre-training, even the lower figure is twice the 15
    trillion tokens of Llama 3.1. The report is silent about where the text came from.

    The 63 million are this one run, at the price that the rumour assumes. "Over $100
    million" is what stood in a magazine, which did not say what that includes.

    Args:
        n_chips: how many chips.
        days: for how long.
        peak_flops: FLOP/s of one chip.
        utilization: the fraction of it that they reach.

    Returns:
        The FLOPs.

    Raises:
        ValueError: if a figure is not positive.
    """
    check_positive(
        n_chips=n_chips, days=days, peak_flops=peak_flops, utilization=utilization
    )
    return n_chips * days * 86400 * peak_flops * utilization


def across_utilizations(
    flops: float,
    utilizations: Iterable[float],
    *,
    peak_flops: float,
    n_chips: int = 1,
    dollars_per_chip_hour: float,
) -> dict[float, TrainingCost]:
    r"""Cost the same work under several assumptions about how well the chips are used.

    How long would xAI's 200,000 GPUs need for what GPT-4 is rumoured to have taken?
    H100 and H200 have the same peak. The utilization is anybody's guess, so three:

    >>> from minillm.flops import CHIPS, six_nd
    >>> gpt4 = six_nd(claim("GPT-4, active").low, claim("GPT-4, read").low)
    >>> n_chips = int(claim("xAI Colossus").low)
    >>> costs = across_utilizations(
    ...     gpt4,
    ...     [0.30, 0.35, 0.40],
    ...     peak_flops=CHIPS["h100"].peak_flops,
    ...     n_chips=n_chips,
    ...     dollars_per_chip_hour=2.0,
    ... )
    >>> [round(cost.days, 1) for cost in costs.values()]
    [4.3, 3.6, 3.2]

    A laptop that does a hundred billion FLOP/s without a pause:

    >>> laptop = training_cost(
    ...     gpt4, peak_flops=1e11, utilization=1.0, dollars_per_chip_hour=0.01
    ... )
    >>> print(f"{laptop.days / 365.25 / 1e6:.1f} million years")
    6.9 million years

    How many such runs would 500 billion dollars buy, at the rumoured price and at the
    reported one?

    >>> prices = [
    ...     claim("GPT-4 run, at 1 dollar an A100-hour").low,
    ...     claim("GPT-4, at least").low,
    ... ]
    >>> [round(claim("Stargate, over four years").low / price, -2) for price in prices]
    [7900.0, 5000.0]

    The money is *intended*, and for buildings, power and chips, not for training runs
    alone; nobody has announced thousands of GPT-4s. The sum only says how much larger
    the plan is than the largest thing of which we know a price.

    Args:
        flops: what is to be computed.
        utilizations: fractions of the peak, in (0, 1].
        peak_flops: FLOP/s of one chip.
        n_chips: how many work side by side.
        dollars_per_chip_hour: what one costs for an hour.

    Returns:
        For each utilization, the cost.
    """
    return {
        utilization: training_cost(
            flops,
            peak_flops=peak_flops,
            utilization=utilization,
            n_chips=n_chips,
            dollars_per_chip_hour=dollars_per_chip_hour,
        )
        for utilization in utilizations
    }
