"""The loss with its gradient by hand, against the chapter's and PyTorch's."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.training.loss import cross_entropy, cross_entropy_fast


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([(), (1,), (5,), (2, 3), (2, 1, 4)]),
    st.integers(1, 40),
    st.floats(0.01, 100),
    st.floats(-3, 3),
    st.integers(0, 2**31),
)
def test_value_and_gradient(shape, vocab, size, factor, seed):
    random = torch.Generator().manual_seed(seed)
    x = size * torch.randn(*shape, vocab, dtype=torch.float64, generator=random)
    y = torch.randint(vocab, shape, generator=random)
    results = []
    for loss in (
        cross_entropy_fast,
        cross_entropy,
        lambda a, b: F.cross_entropy(a.reshape(-1, vocab), b.reshape(-1)),
    ):
        leaf = x.clone().requires_grad_()
        value = loss(leaf, y)
        # Something stands between, and the loss is not the end either.
        (value * factor).backward()
        results.append((value.detach(), leaf.grad))
    for value, gradient in results[1:]:
        torch.testing.assert_close(value, results[0][0], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(gradient, results[0][1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_of_short_numbers_the_sums_are_long(dtype):
    random = torch.Generator().manual_seed(0)
    x = (3 * torch.randn(40, 5000, generator=random)).to(dtype).requires_grad_()
    y = torch.randint(5000, (40,), generator=random)
    loss = cross_entropy_fast(x, y)
    loss.backward()
    exact = x.detach().double().requires_grad_()
    expected = cross_entropy(exact, y)
    expected.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    # The gradient is rounded once, at the end.
    assert x.grad.dtype == dtype
    limits = torch.finfo(dtype)
    torch.testing.assert_close(
        x.grad.double(),
        exact.grad,
        rtol=limits.eps,
        atol=limits.smallest_normal * limits.eps,
    )


def test_the_logits_are_left_alone_in_any_layout():
    x = torch.randn(3, 2, 7, dtype=torch.float64).transpose(0, 1)
    assert not x.is_contiguous()
    leaf, before = x.detach().requires_grad_(), x.clone()
    y = torch.randint(7, (2, 3))
    cross_entropy_fast(leaf, y).backward()
    assert torch.equal(leaf.detach(), before)
    other = before.clone().requires_grad_()
    cross_entropy(other, y).backward()
    torch.testing.assert_close(leaf.grad, other.grad, rtol=1e-12, atol=1e-14)


def test_extreme_scores():
    x = torch.tensor([[1000.0, 0.0]], requires_grad=True)
    loss = cross_entropy_fast(x, torch.tensor([1]))
    loss.backward()
    assert loss.item() == 1000
    assert x.grad.tolist() == [[1.0, -1.0]]


def test_a_second_question_is_refused():
    x = torch.randn(2, 3, requires_grad=True)
    loss = cross_entropy_fast(x, torch.tensor([0, 1]))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_without_gradients_it_is_only_a_number():
    x = torch.randn(4, 9)
    y = torch.randint(9, (4,))
    with torch.no_grad():
        loss = cross_entropy_fast(x, y)
    assert not loss.requires_grad
    assert loss.item() == pytest.approx(F.cross_entropy(x, y).item(), rel=1e-5)
