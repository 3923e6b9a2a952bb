"""What two results have in common, and in what they differ.

A number may be off in its last digits, a tensor may not have another dtype, and a list
is as good as a tuple: what counts as the same is decided here, for all exercises.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

__all__ = ["Outcome", "difference"]

WRONG = "wrong result"


@dataclass
class Outcome:
    """What one call came to: a value or an error, and what it did besides."""

    value: Any = None
    error: BaseException | None = None
    changed: bool = False


def difference(
    expected: Outcome, got: Outcome, tolerance: float | None = None
) -> tuple[str, str] | None:
    """Say in what respect two outcomes differ.

    Args:
        expected: the one that is right.
        got: the other.
        tolerance: how far numbers may be apart, relative to the expected one.

    Returns:
        The kind of the difference and a sentence, or `None`.

    Examples:
        >>> difference(Outcome([1, 2]), Outcome((1, 2))) is None  # as good as a list
        True
        >>> difference(Outcome(0.3), Outcome(0.1 + 0.2)) is None  # the last digit
        True
        >>> difference(Outcome("a"), Outcome(b"a"))
        ('type', 'it returns bytes, and should return str')
    """
    if expected.error is not None:
        wanted = type(expected.error).__name__
        if got.error is None:
            return "error", f"it should raise {wanted}"
        same = isinstance(got.error, type(expected.error))
        return None if same else ("error", f"it should raise {wanted}")
    if got.error is not None:
        text = f"{got.error!s:.400}"
        says = f"{type(got.error).__name__}{': ' if text else ''}{text}"
        return "error", f"it raises {says.splitlines()[0]}"
    try:
        return value_difference(expected.value, got.value, tolerance)
    except Exception as error:  # of a class of the learner's, or a number too large
        name = type(error).__name__
        return "type", f"what it returns cannot be compared ({name})"


def value_difference(
    expected: Any, got: Any, tolerance: float | None
) -> tuple[str, str] | None:
    """Compare two values of any of the types that exercises return."""
    if isinstance(expected, torch.Tensor | np.ndarray):
        return array_difference(expected, got, tolerance)
    if isinstance(expected, bool) or isinstance(got, bool):
        return None if expected is got else ("value", "wrong result")
    if isinstance(expected, int | float):
        if isinstance(got, torch.Tensor | np.ndarray | np.generic) and not got.ndim:
            got = got.item()
        if not isinstance(got, int | float):
            return wrong_type(expected, got)
        exact = isinstance(expected, int) and tolerance is None
        close = math.isclose(got, expected, rel_tol=tolerance or 1e-9, abs_tol=1e-12)
        return None if (got == expected if exact else close) else ("value", WRONG)
    if isinstance(expected, list | tuple):
        if not isinstance(got, list | tuple):
            return wrong_type(expected, got)
        if len(expected) != len(got):
            return "value", WRONG
        pairs = zip(expected, got, strict=True)
        found = (value_difference(*pair, tolerance) for pair in pairs)
        return next(filter(None, found), None)
    for kind in (dict, set):
        if isinstance(expected, kind):
            if not isinstance(got, kind):
                return wrong_type(expected, got)
            return None if kind(expected) == kind(got) else ("value", WRONG)
    if isinstance(expected, str | bytes):
        if type(got) is not type(expected):
            return wrong_type(expected, got)
        return None if expected == got else ("value", WRONG)
    return None  # functions and models among the arguments


def wrong_type(expected: Any, got: Any) -> tuple[str, str]:
    """Describe a result of another type."""
    wanted, given = type(expected).__name__, type(got).__name__
    forgot = "\nDoes it end without `return`?" if got is None else ""
    return "type", f"it returns {given}, and should return {wanted}{forgot}"


def array_difference(
    expected: Any, got: Any, tolerance: float | None
) -> tuple[str, str] | None:
    """Compare two tensors or two arrays: kind, shape, dtype, entries."""
    if not isinstance(got, torch.Tensor | np.ndarray) or isinstance(
        expected, torch.Tensor
    ) != isinstance(got, torch.Tensor):
        return wrong_type(expected, got)
    if tuple(expected.shape) != tuple(got.shape):
        return "shape", (
            f"wrong shape: expected {tuple(expected.shape)}, got {tuple(got.shape)}"
        )
    if expected.dtype != got.dtype:
        return "dtype", f"wrong dtype: expected {expected.dtype}, got {got.dtype}"
    a, b = (
        torch.as_tensor(x if isinstance(x, torch.Tensor) else x.astype(np.float64))
        for x in (expected, got)
    )
    # Sums in another order differ in their last digits, and no further.
    precise = str(expected.dtype).endswith("64")
    rtol = tolerance or (1e-9 if precise else 1e-4)
    close = torch.isclose(
        b.double(), a.double(), rtol, 1e-12 if precise else 1e-6, equal_nan=True
    )
    return None if bool(close.all()) else ("value", WRONG)
