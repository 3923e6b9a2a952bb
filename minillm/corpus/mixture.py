r"""The mixture: in which shares domains are read.

**The question.** A corpus of two domains has 900 megabytes of one and 100 of the other.
A model that reads it as it comes sees the small one in every tenth token. Is that
enough? And if not, how is more asked for, with twenty domains and a single dial?

A model reads tokens, so shares are shares of *tokens*. Counted in documents, a domain
of short notes would look larger than one of books:

>>> documents, tokens = [300, 700], [900_000, 100_000]
>>> [mixture(sizes, temperature=1).round(2).tolist() for sizes in (documents, tokens)]
[[0.3, 0.7], [0.9, 0.1]]

The dial is a temperature, as in sampling: at 1 shares are those of the sizes, and the
higher it is, the more equal they become. What a small domain gains is read again:
at a budget of a million tokens, how often is each one read through?

>>> for temperature in (1, 2, 100):
...     shares = mixture(tokens, temperature)
...     print(temperature, shares.round(2), (1e6 * shares / tokens).round(1))
1 [0.9 0.1] [1. 1.]
2 [0.75 0.25] [0.8 2.5]
100 [0.51 0.49] [0.6 4.9]

What the shares buy, in bits per byte of either domain, is measured in
[`minillm.curation`][].

**Told in** [`minillm.curation`][].
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

__all__ = ["mixture"]


def mixture(tokens: Sequence[int], temperature: float) -> Float64[np.ndarray, " n"]:
    r"""Turn the sizes of domains into the shares in which they are read.

    $$p_i = \frac{n_i^{1 / T}}{\sum_j n_j^{1 / T}}$$

    At $T = 1$ each domain is read in proportion to its size, and as $T$ grows all
    become equal (Arivazhagan et al. 2019, arXiv:1907.05019).

    Args:
        tokens: $n_i$, the tokens of each domain, positive.
        temperature: $T$, positive; at infinity all shares are equal.

    Returns:
        $p_i$, which sum to one.

    Raises:
        ValueError: if a number is not positive.

    Examples:
        >>> [mixture([900, 100], t).round(2).tolist() for t in (1, 2, 100)]
        [[0.9, 0.1], [0.75, 0.25], [0.51, 0.49]]
    """
    if not temperature > 0 or min(tokens) <= 0:
        raise ValueError(
            "sizes and the temperature must be positive; got "
            f"{min(tokens)} and {temperature}: leave empty domains out"
        )
    # In logarithms, where $n^{1 / T}$ cannot overflow at small $T$.
    logs = np.log(np.array(tokens, np.float64)) / temperature
    p = np.exp(logs - logs.max())
    return p / p.sum()
