"""Every public numerical function at the ends of its range, against mpmath or float64.

The reference is computed with 50 digits from the numbers that the function is given,
after they were rounded to its type. So a tolerance is what the function may lose
itself: a few units of the last place of its type.
"""

import io
import math
from itertools import product

import mpmath
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from minillm.attention import (
    MultiHeadAttention,
    multi_head_attention_naive,
    scaled_dot_product_attention,
    softmax,
)
from minillm.config import ModelConfig
from minillm.generate import apply_temperature, pick, top_k_filter, top_p_filter
from minillm.labs.scaling import power_law
from minillm.model import RMSNorm, SwiGLU, TransformerLM, silu
from minillm.rope import RotaryEmbedding
from minillm.train import TrainConfig, Trainer
from minillm.training.baselines import uniform_loss, unigram_loss
from minillm.training.descent import adamw
from minillm.training.loss import (
    bits_per_byte,
    cross_entropy,
    cross_entropy_fast,
    evaluate,
    perplexity,
)
from minillm.training.optimizer import AdamW, clip_gradients, cosine_schedule

INF = math.inf
DTYPES = [torch.float64, torch.float32, torch.bfloat16]
MAX = torch.finfo(torch.float32).max
# The squares of larger numbers are no float32.
ROOT = 1.8e19

ROWS = {
    "one": [7.0],
    "equal": [1e4, 1e4, 1e4],
    "far apart": [1e4, -1e4, 0.0],
    "one in sight": [-1e30, 1e30, -INF],
    "the largest there are": [MAX / 4, MAX / 4, -MAX / 4],
    "denormal": [1e-40, 0.0, -1e-40],
    "some impossible": [-INF, 0.0, 1.0, -INF],
    "down to nothing": [-3.0 * i for i in range(60)],
    "near": [0.001 * i for i in range(50)],
}


@pytest.fixture(autouse=True)
def digits():
    with mpmath.workdps(50):
        yield


def ulps(dtype: torch.dtype, n: float) -> float:
    return n * torch.finfo(dtype).eps


def exact(x: torch.Tensor) -> list[mpmath.mpf]:
    return [mpmath.mpf(number) for number in x.double().tolist()]


def close(ours: torch.Tensor, expected: list, rtol: float, atol: float = 0.0) -> None:
    """Compare number by number; infinities must be equal."""
    for got, want in zip(ours.double().flatten().tolist(), expected, strict=True):
        want = mpmath.mpf(want)
        if mpmath.isinf(want):
            assert math.isinf(got) and got * want > 0
        else:
            assert abs(got - want) <= rtol * abs(want) + atol, (got, want)


# Softmax and attention


def exact_softmax(row: list[mpmath.mpf]) -> list[mpmath.mpf]:
    top = max(row)
    e = [mpmath.exp(x - top) for x in row]
    return [x / mpmath.fsum(e) for x in e]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ROWS)
def test_softmax(name, dtype):
    x = torch.tensor(ROWS[name], dtype=dtype)
    # Below the smallest normal number, digits are lost; so much may be off.
    tiny = torch.finfo(dtype).smallest_normal
    close(softmax(x, dim=0), exact_softmax(exact(x)), ulps(dtype, len(x) + 8), tiny)


def test_softmax_of_nothing_possible_is_no_number_and_of_nothing_is_refused():
    ours = softmax(torch.tensor([[-INF, -INF], [0.0, -INF]]), dim=-1)
    assert ours.isnan().tolist() == [[True, True], [False, False]]
    assert softmax(torch.empty(0, 3), dim=-1).shape == (0, 3)
    with pytest.raises(IndexError, match="non-zero size"):
        softmax(torch.empty(0), dim=0)


def exact_attention(q, k, v, mask):
    """By lists and 50 digits, each query on its own."""
    rows = []
    for row, allowed in zip(q, mask.tolist(), strict=True):
        seen = [i for i, yes in enumerate(allowed) if yes]
        if not seen:
            rows += [mpmath.mpf(0)] * v.shape[1]
            continue
        dots = [mpmath.fdot(exact(row), exact(k[i])) for i in seen]
        p = exact_softmax([dot / mpmath.sqrt(len(row)) for dot in dots])
        values = [exact(v[i]) for i in seen]
        rows += [mpmath.fdot(p, [x[c] for x in values]) for c in range(v.shape[1])]
    return rows


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-30, 1.0, 100.0])
def test_attention(scale, dtype):
    """Scores up to 10,000, all masks from nothing to everything."""
    random = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(4, 5, generator=random).to(dtype) for _ in range(3))
    q, k = q * scale, k * scale
    mask = torch.tensor([
        [True] * 4, [True, False, False, True], [False] * 4, [False, True] * 2
    ])  # fmt: skip
    # A score is rounded before `exp`, and its error there is relative to its size.
    score = (q.double() @ k.double().T).abs().max().item() / math.sqrt(5)
    rtol = ulps(dtype, 8 * max(score, 1))
    size = v.double().abs().max().item()
    expected = exact_attention(q, k, v, mask)
    close(scaled_dot_product_attention(q, k, v, mask), expected, 0, rtol * size)
    everything = torch.ones(4, 4, dtype=torch.bool)
    expected = exact_attention(q, k, v, everything)
    close(scaled_dot_product_attention(q, k, v), expected, 0, rtol * size)


def test_a_query_that_may_look_nowhere_gathers_zeros_and_teaches_nothing():
    q, k, v = (torch.randn(2, 3, 4, requires_grad=True) for _ in range(3))
    nowhere = torch.zeros(3, 3, dtype=torch.bool)
    gathered = scaled_dot_product_attention(q, k, v, nowhere)
    assert torch.equal(gathered, torch.zeros(2, 3, 4))
    gathered.sum().backward()
    for tensor in (q, k, v):
        assert torch.equal(tensor.grad, torch.zeros(2, 3, 4))


@pytest.mark.parametrize("seq", [1, 2, 9])
@pytest.mark.parametrize("scale", [1e-20, 1.0, 30.0])
def test_every_rung_of_attention(seq, scale):
    """One head after another, all in one product, and the fused kernel, in float64."""
    random = torch.Generator().manual_seed(seq)
    attn = MultiHeadAttention(16, 4, 2, RotaryEmbedding(4, 16)).double()
    x = scale * torch.randn(1, seq, 16, dtype=torch.float64, generator=random)
    naive = multi_head_attention_naive(x, *attn.parameters(), 4, attn.rope)
    torch.testing.assert_close(attn(x), naive, rtol=1e-9, atol=1e-12 * scale)


def test_attention_over_no_positions():
    assert MultiHeadAttention(16, 4)(torch.ones(2, 0, 16)).shape == (2, 0, 16)
    q, k = torch.ones(0, 3), torch.ones(2, 3)
    assert scaled_dot_product_attention(q, k, k).shape == (0, 3)
    with pytest.raises(IndexError, match="non-zero size"):
        scaled_dot_product_attention(k, q, q)


# The other parts of the model


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [0.0, 1e-40, 1e-20, 1e-3, 1.0, 1e4, 1e18])
def test_rms_norm(scale, dtype):
    norm = RMSNorm(5).to(dtype)
    x = (scale * torch.tensor([[3.0, -4.0, 0.5, 1.0, -2.0]])).to(dtype)
    numbers = exact(x[0])
    mean = mpmath.fsum(n * n for n in numbers) / 5
    expected = [n / mpmath.sqrt(mean + mpmath.mpf(1e-5)) for n in numbers]
    close(norm(x), expected, ulps(dtype, 4), torch.finfo(dtype).smallest_normal)


def test_rms_norm_ends_where_squares_end():
    x = torch.tensor([ROOT, -ROOT]) / 2
    close(RMSNorm(2)(x), [1, -1], 1e-6)
    # Beyond, their sum is infinite and all is divided away: as in PyTorch, and defined.
    assert RMSNorm(2)(x * 10).tolist() == [0.0, -0.0]
    assert RMSNorm(2)(torch.empty(0, 2)).shape == (0, 2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_silu_and_swiglu(dtype):
    x = torch.tensor(
        [0.0, 1e-40, -1e-40, 1.0, -1.0, 20.0, -20.0, 100.0, -100.0, 1e4, -1e4, 1e30,
         -1e30, MAX], dtype=dtype
    )  # fmt: skip
    expected = [n / (1 + mpmath.exp(-n)) for n in exact(x)]
    tiny = 2 * torch.finfo(dtype).smallest_normal * 100
    close(silu(x), expected, ulps(dtype, 4), tiny)
    close(F.silu(x), expected, ulps(dtype, 4), tiny)

    ffn = SwiGLU(1, 1).to(dtype)
    with torch.no_grad():
        for part in (ffn.w1, ffn.w2, ffn.w3):
            part.weight.fill_(0.5)
    small = x[x.abs() <= 1e4].unsqueeze(1)
    halves = [n / 2 for n in exact(small.squeeze(1))]
    expected = [h / (1 + mpmath.exp(-h)) * h / 2 for h in halves]
    close(ffn(small), expected, ulps(dtype, 8), tiny * 1e4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rotary_positions_a_million_away(dtype):
    rope = RotaryEmbedding(4, 1_000_001)
    rope = rope.double() if dtype == torch.float64 else rope
    x = torch.tensor([[0.3, -2.0, 5.0, 0.7]], dtype=dtype)
    for position in (0, 1, 999, 1_000_000):
        numbers, expected = exact(x[0]), []
        for j in range(2):
            angle = position * mpmath.mpf(10000) ** (-mpmath.mpf(2 * j) / 4)
            turn = mpmath.expj(angle) * mpmath.mpc(*numbers[2 * j : 2 * j + 2])
            expected += [turn.real, turn.imag]
        # An angle of a million has ten digits behind the point in float64.
        close(rope(x, torch.tensor([position])), expected, 0, ulps(dtype, 6) + 1e-9)
        close(rope(x * 0, torch.tensor([position])), [0] * 4, 0)


def test_the_model_in_bfloat16_is_the_model():
    """Weights and all: to a tenth of the spread of the scores."""
    torch.manual_seed(0)
    model = TransformerLM(ModelConfig(100, 32, 64, 3, 4, n_kv_heads=2))
    ids = torch.randint(100, (2, 32))
    short = model.bfloat16()(ids).double()
    exact_scores = model.double()(ids)
    error = (short - exact_scores).abs().max()
    assert 0 < error < exact_scores.std() / 10


@pytest.mark.parametrize("length", [0, 1])
def test_the_model_reads_texts_of_length(length):
    model = TransformerLM(ModelConfig(7, 4, 8, 1, 2))
    ids = torch.zeros(1, length, dtype=torch.int64)
    assert model(ids).shape == (1, length, 7)
    assert model(ids).isfinite().all()


# The loss


@pytest.mark.parametrize("loss", [cross_entropy, cross_entropy_fast])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ROWS)
def test_cross_entropy(name, dtype, loss):
    x = torch.tensor([ROWS[name]], dtype=dtype)
    p = exact_softmax(exact(x[0]))
    numbers, top = exact(x[0]), max(exact(x[0]))
    log_sum = mpmath.log(mpmath.fsum(mpmath.exp(n - top) for n in numbers))
    for target in range(len(p)):
        scores = x.clone().requires_grad_()
        y = torch.tensor([target])
        value = loss(scores, y)
        # The score and the sum are added up, and what cancels there is lost.
        expected = log_sum + (top - numbers[target])
        close(value, [expected], ulps(dtype, 4), ulps(dtype, 4))
        if mpmath.isinf(expected):
            continue
        value.backward()
        gradient = [p[j] - (j == target) for j in range(len(p))]
        size = ulps(dtype, len(p) + 8) * (1 + float(log_sum))
        close(scores.grad, gradient, 0, size)


@pytest.mark.parametrize("loss", [cross_entropy, cross_entropy_fast])
def test_cross_entropy_of_little(loss):
    """One token to choose from, no position, and targets that there are not."""
    assert loss(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64)).item() == 0
    assert loss(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)).isnan()
    for wrong in (-1, 4):
        with pytest.raises(RuntimeError, match="out of bounds"):
            loss(torch.zeros(1, 4), torch.tensor([wrong]))


def test_perplexity_and_bits():
    for nats in (0.0, 1e-300, 1e-9, 1.0, 20.0, 709.0):
        assert perplexity(nats) == pytest.approx(float(mpmath.exp(nats)), rel=1e-15)
        bits = mpmath.mpf(nats) * 10**9 / (mpmath.log(2) * 3)
        assert bits_per_byte(nats, 10**9, 3) == pytest.approx(float(bits), rel=1e-15)
    # A diverged model may have any loss.
    assert perplexity(1e4) == perplexity(INF) == INF
    assert math.isnan(perplexity(math.nan))
    assert uniform_loss(1) == 0
    assert uniform_loss(10**30) == pytest.approx(float(30 * mpmath.log(10)), rel=1e-15)


def test_the_shortest_text_and_the_shortest_context():
    model = TransformerLM(ModelConfig(5, 1, 8, 1, 2)).double()
    tokens = np.array([1, 2, 3])
    with torch.no_grad():
        rows = model(torch.tensor([[1], [2]]))[:, 0].log_softmax(-1)
    expected = -(rows[0, 2] + rows[1, 3]).item() / 2
    assert evaluate(model, tokens) == pytest.approx(expected, rel=1e-6)
    assert evaluate(model, tokens[:2]) == pytest.approx(-rows[0, 2].item(), rel=1e-6)
    for nothing in ([], [1]):
        with pytest.raises(ValueError, match="nothing to predict"):
            evaluate(model, np.array(nothing, dtype=np.int64))
        with pytest.raises(ValueError, match="nothing to predict"):
            unigram_loss(tokens, nothing, 4)
    # Without a text to count, all tokens are alike.
    assert unigram_loss([], tokens, 4) == pytest.approx(math.log(4))
    with pytest.raises(ValueError, match="knows the ids 0 to 2; the text has 3"):
        unigram_loss([], tokens, 3)


# The optimizer


@pytest.mark.parametrize("size", [0.0, 1e-40, 1e-30, 1e-8, 1.0, 1e10, 1e18])
def test_adamw(size):
    """Five steps in float32 against 50 digits, and the naive rule in float64."""
    lr, (b1, b2), eps, decay = 0.1, (0.9, 0.95), 1e-8, 0.1
    w = torch.tensor([2.0, -3.0], requires_grad=True)
    wide = w.detach().double()
    optimizer = AdamW([w], lr, (b1, b2), eps, decay)
    state = {"step": torch.zeros(()), "exp_avg": torch.zeros(2).double(),
             "exp_avg_sq": torch.zeros(2).double()}  # fmt: skip
    expected = [mpmath.mpf(2), mpmath.mpf(-3)]
    m, v = [mpmath.mpf(0)] * 2, [mpmath.mpf(0)] * 2
    for t in range(1, 6):
        w.grad = torch.tensor([size, -size]) * (-1) ** (t // 2)
        for i, g in enumerate(exact(w.grad)):
            m[i] = b1 * m[i] + (1 - mpmath.mpf(b1)) * g
            v[i] = b2 * v[i] + (1 - mpmath.mpf(b2)) * g**2
            root = mpmath.sqrt(v[i] / (1 - mpmath.mpf(b2) ** t))
            expected[i] *= 1 - mpmath.mpf(lr) * decay
            expected[i] -= lr * m[i] / (1 - mpmath.mpf(b1) ** t) / (root + eps)
        optimizer.step()
        wide = adamw(wide, w.grad.double(), state, lr, betas=(b1, b2), eps=eps,
                     weight_decay=decay)  # fmt: skip
    close(w.detach(), expected, 2e-6, 1e-6)
    close(wide, expected, 1e-12, 1e-12)


def test_adamw_stands_still_where_squares_end():
    w = torch.ones(1, requires_grad=True)
    optimizer = AdamW([w], lr=0.1, weight_decay=0.0)
    for _ in range(3):
        w.grad = torch.tensor([1e30])
        optimizer.step()
    assert torch.equal(w.detach(), torch.ones(1))


@pytest.mark.parametrize("size", [0.0, 1e-15, 1.0, 1e15, 1e25, 1e37])
@pytest.mark.parametrize("max_norm", [1.0, 1e10, INF])
def test_clipping(size, max_norm):
    first, second, unused = (torch.zeros(2, requires_grad=True) for _ in range(3))
    first.grad, second.grad = torch.tensor([size, 0.0]), torch.tensor([0.0, -2 * size])
    before = exact(first.grad) + exact(second.grad)
    length = mpmath.sqrt(mpmath.fsum(g * g for g in before))
    assert clip_gradients([first, unused, second], max_norm) == pytest.approx(
        float(length), rel=1e-6
    )
    factor = min(1, max_norm / length) if length else 1
    after = torch.cat([first.grad, second.grad])
    close(after, [factor * g for g in before], 1e-6)
    assert clip_gradients([], max_norm) == 0


def test_the_schedule():
    for warmup, total in ((0, 1), (3, 3), (5, 10), (10**9, 10**12)):
        for step in (0, 1, warmup, (warmup + total) // 2, total - 1, total, 10**15):
            if step < warmup:
                rate = mpmath.mpf(step) / warmup
            elif step >= total:
                rate = mpmath.mpf("0.1")
            else:
                turn = mpmath.pi * (step - warmup) / (total - warmup)
                rate = mpmath.mpf("0.1") + mpmath.mpf("0.45") * (1 + mpmath.cos(turn))
            ours = cosine_schedule(step, 1.0, 0.1, warmup, total)
            assert ours == pytest.approx(float(rate), rel=1e-12)
    assert cosine_schedule(0, 1.0, 0.1, 0, 0) == pytest.approx(0.1)


# Sampling


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("p", [1e-300, 0.3, 0.999999, 1.0])
def test_top_p(name, dtype, p):
    x = torch.tensor(ROWS[name], dtype=dtype)
    shares = exact_softmax(exact(x))
    kept, total = set(), mpmath.mpf(0)
    for i in sorted(range(len(x)), key=lambda i: (-shares[i], i)):
        # Whether a sum of rounded numbers has reached p, rounding may decide.
        assert p == 1 or total == 0 or abs(total - p) > 1e-12
        if p < 1 and total >= p:
            break
        kept.add(i)
        total += shares[i]
    filtered = top_p_filter(x, p)
    impossible = {i for i, score in enumerate(x.tolist()) if score == -INF}
    assert {i for i, score in enumerate(filtered.tolist()) if score > -INF} == (
        kept - impossible
    )
    assert all(filtered[i] == x[i] for i in kept)


@pytest.mark.parametrize("name", ROWS)
def test_top_k_and_temperature(name):
    x = torch.tensor(ROWS[name])
    order = sorted(range(len(x)), key=lambda i: (-x[i].item(), i))
    for k in (1, 2, len(x), 10**9):
        kept = {i for i in order[:k] if x[i] > -INF}
        filtered = top_k_filter(x, k)
        assert {i for i, s in enumerate(filtered.tolist()) if s > -INF} == kept
    for t in (1e-3, 1.0, 1e30):
        ours = apply_temperature(x.double(), t)
        close(ours, [n / mpmath.mpf(t) for n in exact(x)], 1e-15, 1e-320)
    assert top_k_filter(torch.empty(0), 1).shape == (0,)
    for t in (0, 0.0, -1.0, INF, math.nan):
        with pytest.raises(ValueError, match="positive and finite"):
            apply_temperature(x, t)


@pytest.mark.parametrize("t", [1e-320, 1e-30, 1.0, 1e30, 1e300])
def test_draws_at_extreme_temperatures(t):
    """The largest score at t towards 0, all alike at t without bound."""
    random = torch.Generator().manual_seed(0)
    logits = torch.tensor([1e4, -1e4, 1e4, -INF])
    draws = [pick(logits, temperature=t, random=random) for _ in range(300)]
    shares = exact_softmax([n / mpmath.mpf(t) for n in exact(logits)])
    for i, share in enumerate(shares):
        assert draws.count(i) / 300 == pytest.approx(float(share), abs=0.12)
        assert share > 0 or i not in draws


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_draw_from_nothing_possible_is_refused(temperature):
    with pytest.raises(ValueError, match="no token is possible"):
        pick(torch.tensor([-INF, -INF]), temperature=temperature)
    # Neither what is banned is drawn, nor what is impossible.
    with pytest.raises(ValueError, match="no token is possible"):
        pick(torch.tensor([0.0, -INF]), temperature=temperature, banned_ids=[0])
    with pytest.raises(ValueError, match="no token is possible"):
        pick(torch.empty(0), temperature=temperature)
    assert pick(torch.tensor([3.0]), temperature=temperature) == 0


# Fits


def test_power_law():
    for a, b, budgets in (
        (1e-200, 0.05, [1e10, 1e15, 1e20]),
        (1e200, 3.0, [1e-30, 1.0, 1e30]),
        (2.0, 0.0, [1.0, 2.0, 2.0]),
    ):
        losses = [float(a * mpmath.mpf(c) ** -b) for c in budgets]
        law = power_law(budgets, losses)
        assert law.b == pytest.approx(b, abs=1e-12)
        assert math.log(law.a) == pytest.approx(float(mpmath.log(a)), abs=1e-9)
        assert law.spread < 1e-10
    # Against the closed form of least squares, for points off the line.
    x, y = [1.0, 10.0, 1e5, 1e9], [3.0, 2.5, 1.0, 0.9]
    u, w = [mpmath.log(n) for n in x], [mpmath.log(n) for n in y]
    mu, mw = mpmath.fsum(u) / 4, mpmath.fsum(w) / 4
    slope = mpmath.fsum((p - mu) * (q - mw) for p, q in zip(u, w, strict=True))
    slope /= mpmath.fsum((p - mu) ** 2 for p in u)
    law = power_law(x, y)
    assert law.b == pytest.approx(float(-slope), rel=1e-12)
    assert law.a == pytest.approx(float(mpmath.exp(mw - slope * mu)), rel=1e-12)


@pytest.mark.parametrize("bad", [0.0, -1.0, INF, math.nan])
def test_a_power_law_has_a_logarithm(bad):
    for budgets, losses in (
        ([1, 10, bad], [3, 2, 1]),
        ([1, 10, 100], [3, 2, bad]),
    ):
        with pytest.raises(ValueError, match=r"positive and finite; got .*: leave"):
            power_law(budgets, losses)


# Threads and seeds


def step(threads: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        torch.manual_seed(0)
        model = TransformerLM(ModelConfig(512, 128, 128, 2, 4))
        ids = torch.randint(512, (8, 129), generator=torch.manual_seed(1))
        loss = cross_entropy_fast(model(ids[:, :-1]), ids[:, 1:])
        loss.backward()
        return loss.detach(), {n: w.grad for n, w in model.named_parameters()}
    finally:
        torch.set_num_threads(before)


def test_two_threads_find_what_one_finds():
    """Sums are cut elsewhere, so the last digits differ: by at most 1e-5."""
    (one, alone), (two, shared) = step(1), step(2)
    torch.testing.assert_close(one, two, rtol=1e-6, atol=0)
    for name, gradient in alone.items():
        scale = gradient.abs().max().item()
        torch.testing.assert_close(gradient, shared[name], rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize(
    ("threads", "dtype"), list(product([1, 2], ["float32", "bf16"]))
)
def test_the_same_seed_gives_the_same_bytes(threads, dtype):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        saved = []
        for _ in range(2):
            torch.manual_seed(3)
            model = TransformerLM(ModelConfig(64, 32, 64, 2, 4))
            text = np.arange(5000) ** 2 % 61
            config = TrainConfig(steps=12, batch_size=8, seed=3, dtype=dtype)
            trainer = Trainer(model, text, config)
            while trainer.done < config.steps:
                trainer.step()
            trainer.seconds = 0.0  # the clock is part of a checkpoint
            file = io.BytesIO()
            trainer.save(file)
            saved.append(file.getvalue())
    finally:
        torch.set_num_threads(before)
    assert saved[0] == saved[1]
