r"""Multiple choice: how likely is each answer, and by which count?

**The question.** A model that completes texts can be asked without being made to write:
which of these continuations does it find the most likely? Two traps lie in it. Tokens
may cross the border between prompt and choice, and long choices lose.

**Before this:** [`minillm.evaluation`][], which shows three winners of one question.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from minillm.bpe import BPETokenizer
from minillm.inference.checks import check_ids
from minillm.model import TransformerLM
from minillm.tokenizer.streams import check_lists

__all__ = ["By", "Choices", "choice_log_likelihoods", "score_choices"]

By = Literal["total", "token", "byte", "prior"]


class Choices(NamedTuple):
    """What a model makes of the choices of one question.

    Attributes:
        log_likelihoods: of each choice, given the prompt, in nats.
        n_tokens: how many tokens of each were scored.
        n_bytes: how many bytes each has.
        priors: the log-likelihood of each without the question; `None` if not asked.
    """

    log_likelihoods: NDArray[np.float64]
    n_tokens: NDArray[np.int64]
    n_bytes: NDArray[np.int64]
    priors: NDArray[np.float64] | None = None

    def best(self, by: By = "total") -> int:
        """Name the winner: the index of the greatest score, the first among equals.

        Args:
            by: what the log-likelihood is divided by, or reduced by.

        Returns:
            The index.

        Raises:
            ValueError: for `prior` without priors, or if a score is not a number.
        """
        if by == "prior" and self.priors is None:
            raise ValueError("there are no priors: give a neutral prompt as `without`")
        priors = 0.0 if self.priors is None else self.priors
        scores = {
            "total": self.log_likelihoods,
            "token": self.log_likelihoods / self.n_tokens,
            "byte": self.log_likelihoods / self.n_bytes,
            "prior": self.log_likelihoods - priors,
        }
        if np.isnan(scores[by]).any():
            raise ValueError(
                f"a score by {by} is not a number, so none is the greatest: the "
                "model's weights are damaged, or a choice is empty"
            )
        return int(scores[by].argmax())


def score_choices(
    model: TransformerLM,
    tokenizer: BPETokenizer,
    prompt: str,
    choices: Sequence[str],
    without: str | None = None,
    begin_ids: Sequence[int] = (),
) -> Choices:
    r"""Ask a model how likely each choice is after a prompt.

    A prompt and a choice that are encoded apart may be other tokens than the whole: a
    word that begins in one and ends in the other is cut. So the whole is encoded, and
    scored is what comes after the tokens that it shares with the prompt, the same
    number for all choices. (lm-evaluation-harness does the same wherever the prompt's
    tokens are a prefix of the whole.)

    Args:
        model: the model.
        tokenizer: its tokenizer.
        prompt: what comes before. Not empty; spaces belong to the choices (`" Paris"`).
        choices: at least one, none of them empty.
        without: a neutral prompt, such as `"Answer:"`, for the priors.
        begin_ids: ids that stand before every text, if the model wants them.

    Returns:
        The scores.

    Raises:
        ValueError: if there is nothing to score, the model does not know a token, or a
            text outgrows the context.

    Examples:
        All continuations of one byte have a sum of one, and ASCII is half of them:

        >>> from minillm.config import ModelConfig
        >>> tokenizer = BPETokenizer({i: bytes([i]) for i in range(256)}, [])
        >>> _ = torch.manual_seed(0)
        >>> model = TransformerLM(ModelConfig(256, 16, 8, 1, 2)).double()
        >>> ascii_ = [chr(i) for i in range(128)]
        >>> p = np.exp(score_choices(model, tokenizer, "Hello", ascii_).log_likelihoods)
        >>> bool(0 < p.sum() < 1)  # the other bytes begin longer characters
        True
    """
    check_lists(choices=choices)
    if not choices or not all(choices) or not prompt:
        raise ValueError("a prompt and at least one choice are needed, none of them ''")
    head = [*begin_ids, *tokenizer.encode(prompt)]
    wholes = [[*begin_ids, *tokenizer.encode(prompt + choice)] for choice in choices]
    check_ids({i for whole in wholes for i in whole}, model.config.vocab_size)
    start = min(_shared(head, whole) for whole in wholes)
    if start == 0:
        raise ValueError(
            f"no token of the prompt {prompt!r:.40} is a token of the whole: begin it "
            "with a word of its own"
        )
    totals, counts = [], []
    for whole in wholes:  # one by one, so that the result does not depend on the others
        ids = torch.tensor([whole], device=model.token_embedding.weight.device)
        with torch.inference_mode():
            logits = model(ids[:, :-1])[0, start - 1 :]  # the last of the prompt speaks
        log_p = logits.double().log_softmax(-1)
        totals.append(log_p.gather(-1, ids[0, start:, None]).sum().item())
        counts.append(len(whole) - start)
    priors = None
    if without is not None:
        neutral = score_choices(model, tokenizer, without, choices, begin_ids=begin_ids)
        priors = neutral.log_likelihoods
    n_bytes = np.array([len(choice.encode()) for choice in choices])
    return Choices(np.array(totals), np.array(counts), n_bytes, priors)


def _shared(a: Sequence[int], b: Sequence[int]) -> int:
    """How many ids two sequences share from their beginning."""
    same = (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
    return next(same, min(len(a), len(b)))


def choice_log_likelihoods(
    model: TransformerLM, tokenizer: BPETokenizer, prompt: str, choices: Sequence[str]
) -> NDArray[np.float64]:
    r"""Compute $\ln p(\text{choice} \mid \text{prompt})$ for each choice.

    Args:
        model: see [`score_choices`][minillm.inference.choices.score_choices], also for
            the rest.
        tokenizer: its tokenizer.
        prompt: what comes before.
        choices: the choices.

    Returns:
        The log-likelihoods in nats, whole and not divided by anything.

    Examples:
        >>> from minillm.config import ModelConfig
        >>> tokenizer = BPETokenizer({i: bytes([i]) for i in range(256)}, [])
        >>> _ = torch.manual_seed(0)
        >>> model = TransformerLM(ModelConfig(256, 32, 8, 1, 2))
        >>> choices = [" even", " odd"]
        >>> scores = choice_log_likelihoods(model, tokenizer, "Two is", choices)
        >>> scores.shape, bool((scores < 0).all())
        ((2,), True)
    """
    return score_choices(model, tokenizer, prompt, choices).log_likelihoods
