"""Sampling: the filters by brute force, the draws by counting, the text by a loop."""

import copy
import math
from itertools import combinations, islice

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from minillm.bpe import BPETokenizer
from minillm.config import ModelConfig
from minillm.generate import (
    apply_temperature,
    generate,
    generate_naive,
    pick,
    stream,
    stream_text,
    top_k_filter,
    top_p_filter,
)
from minillm.inference.checks import check_prompt
from minillm.inference.decoder import Decoder, Memory, read_prompt
from minillm.model import TransformerLM

CONFIG = ModelConfig(23, 9, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, d_ff=24)
quick = settings(deadline=None, max_examples=60)

# Few different values, so that many are equal.
scores = st.lists(st.sampled_from([-2.0, 0.0, 0.5, 0.7, 3.0]), min_size=1, max_size=8)


@pytest.fixture(scope="module")
def lm():
    """A model in float64 with strong opinions: a fresh one draws almost evenly."""
    torch.manual_seed(0)
    lm = TransformerLM(CONFIG).double()
    with torch.no_grad():
        for weight in lm.parameters():
            if weight.ndim == 2:
                weight.normal_(std=1.5 / math.sqrt(weight.shape[1]))
    return lm


class Script(TransformerLM):
    """A model that says what it is told to say, and counts what it reads."""

    def __init__(self, says, vocab_size=300, context_length=64):
        super().__init__(ModelConfig(vocab_size, context_length, 4, 1, 1, d_ff=4))
        self.says, self.read = list(says), []

    def forward(self, ids, cache=None):
        logits = torch.zeros(*ids.shape, self.config.vocab_size)
        logits[:, -1, self.says[len(self.read)]] = 1000.0
        self.read.append(ids[0].tolist())
        return logits


def float64(numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def kept(logits):
    return {i for i, x in enumerate(logits.tolist()) if x > -math.inf}


def probabilities(logits):
    e = [math.exp(x - max(logits)) for x in logits]
    return [x / math.fsum(e) for x in e]


# Temperature


@given(scores, st.floats(0.05, 20))
@quick
def test_temperature_raises_probabilities_to_a_power(logits, t):
    found = torch.softmax(apply_temperature(float64(logits), t), 0)
    powers = [p ** (1 / t) for p in probabilities(logits)]
    for p, power in zip(found.tolist(), powers, strict=True):
        assert math.isclose(p, power / math.fsum(powers), rel_tol=1e-9, abs_tol=1e-300)


@pytest.mark.parametrize("t", [0, -1.0, math.inf, math.nan])
def test_no_temperature_is_no_division(t):
    says = f"^the temperature must be positive and finite; got {t}: 1 changes nothing$"
    with pytest.raises(ValueError, match=says):
        apply_temperature(float64([1, 2]), t)


# Top-k and top-p


@given(scores, st.integers(1, 10))
@quick
def test_top_k_keeps_exactly_the_largest(logits, k):
    x = float64(logits)
    found = top_k_filter(x, k)
    # Among equals, the smaller id.
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    assert kept(found) == set(order[:k])
    assert all(found[i] == x[i] for i in kept(found))
    assert x.tolist() == logits


@given(scores, st.floats(0, 1, exclude_min=True))
@quick
def test_top_p_keeps_the_smallest_set_that_is_enough(logits, p):
    found = top_p_filter(float64(logits), p)
    each = probabilities(logits)
    # Of all sets, the smallest that reach p; of those, the likeliest; of those, the
    # one of the smallest ids. Sums within rounding of p could fall on either side.
    sets = [
        chosen
        for size in range(1, len(each) + 1)
        for chosen in combinations(range(len(each)), size)
    ]
    sums = {chosen: math.fsum(each[i] for i in chosen) for chosen in sets}
    assume(p == 1 or all(abs(total - p) > 1e-9 for total in sums.values()))
    enough = [chosen for chosen in sets if sums[chosen] >= min(p, 1 - 1e-9)]
    best = min(
        enough, key=lambda chosen: (len(chosen), -round(sums[chosen], 9), chosen)
    )
    assert kept(found) == set(best)
    assert all(found[i] == logits[i] for i in kept(found))


@pytest.mark.parametrize(
    ("n", "p", "n_kept"),
    [(4, 0.5, 2), (4, 0.5001, 3), (4, 0.75, 3), (8, 0.125, 1), (8, 1, 8), (2, 1e-9, 1)],
)
def test_top_p_stops_at_exactly_p(n, p, n_kept):
    # Equal scores whose probabilities a computer can write down exactly.
    assert kept(top_p_filter(torch.zeros(n), p)) == set(range(n_kept))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_top_p_keeps_k_of_n_equals_at_k_over_n(dtype):
    wrong = [
        (k, n)
        for n in range(2, 65)
        for k in range(1, n + 1)
        if kept(top_p_filter(torch.full((n,), -1.7, dtype=dtype), k / n))
        != set(range(k))
    ]
    assert wrong == []


def test_top_p_sees_a_difference_beyond_rounding():
    p = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64).log()
    for share, n_kept in ((0.75, 2), (0.75 + 1e-8, 3), (0.75 - 1e-8, 2), (0.5, 1)):
        assert kept(top_p_filter(p, share)) == set(range(n_kept))
    assert kept(top_p_filter(torch.zeros(3), 5e-324)) == {0}


def test_many_equals_are_kept_in_their_order():
    equal = torch.zeros(50_000)
    assert kept(top_k_filter(equal, 777)) == set(range(777))
    assert kept(top_p_filter(equal, 0.50001)) == set(range(25_001))


def test_top_p_of_one_keeps_every_token():
    # The second has a probability of 4e-18: added to that of the first, it is lost.
    logits = torch.tensor([-40.0, 0.0, -100.0, -math.inf])
    assert kept(top_p_filter(logits, 1.0)) == {0, 1, 2}
    assert kept(top_p_filter(logits, 0.999)) == {1}


@pytest.mark.parametrize("function", [top_k_filter, top_p_filter, apply_temperature])
def test_each_row_of_a_batch_is_filtered_by_itself(function):
    argument = 3 if function is top_k_filter else 0.6
    logits = torch.randn(2, 3, 7, generator=torch.manual_seed(0))
    found = function(logits, argument)
    for row, expected in zip(logits.flatten(0, 1), found.flatten(0, 1), strict=True):
        assert torch.equal(function(row, argument), expected)


# One draw

WEIGHTS = [40, 5, 22, 1, 15, 0.5, 10, 6.5]  # percent


def expected_shares(temperature=1.0, top_k=None, top_p=None, banned_ids=()):
    """What `pick` promises, in Python's own numbers: ban, sharpen, filter."""
    weights = {i: w for i, w in enumerate(WEIGHTS) if i not in banned_ids}
    weights = {i: w ** (1 / temperature) for i, w in weights.items()}
    order = sorted(weights, key=weights.get, reverse=True)[:top_k]
    total = math.fsum(weights[i] for i in order)
    stay, so_far = [], 0.0
    for i in order:
        if top_p is None or so_far / total < top_p:
            stay.append(i)
        so_far += weights[i]
    total = math.fsum(weights[i] for i in stay)
    return {i: weights[i] / total for i in stay}


def chi_square(draws, shares):
    return sum(
        (draws.count(i) - len(draws) * share) ** 2 / (len(draws) * share)
        for i, share in shares.items()
    )


# Chance alone exceeds these in one case of a thousand; by degrees of freedom.
ONE_IN_A_THOUSAND = [0.0, 10.83, 13.82, 16.27, 18.47, 20.52, 22.46, 24.32]


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"temperature": 0.7},
        {"temperature": 1.6},
        {"top_k": 4},
        {"top_p": 0.8},
        {"banned_ids": (0, 3)},
        {"temperature": 1.5, "top_k": 6, "top_p": 0.9, "banned_ids": (2,)},
    ],
    ids=str,
)
def test_draws_follow_the_distribution(chosen):
    logits = torch.tensor(WEIGHTS).log() + 17
    random = torch.Generator().manual_seed(1)
    draws = [pick(logits, **chosen, random=random) for _ in range(1000)]
    shares = expected_shares(**chosen)
    assert set(draws) <= set(shares)
    assert chi_square(draws, shares) < ONE_IN_A_THOUSAND[len(shares) - 1]
    # The test has the power to see the settings at all.
    plain = dict(enumerate(w / 100 for w in WEIGHTS))
    assert not chosen or chi_square(draws, plain) > 2 * ONE_IN_A_THOUSAND[7]


def test_top_p_counts_what_top_k_has_left():
    # Of 50 : 30 : 15 : 5, top-k leaves 62.5 : 37.5 percent, and 0.6 is reached at once.
    logits = torch.tensor([0.50, 0.30, 0.15, 0.05]).log()
    random = torch.Generator().manual_seed(0)
    both = {pick(logits, top_k=2, top_p=0.6, random=random) for _ in range(100)}
    alone = {pick(logits, top_p=0.6, random=random) for _ in range(100)}
    assert (both, alone) == ({0}, {0, 1})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_tiny_temperature_is_greedy(dtype):
    logits = torch.tensor([1.0, -3.0, 5.0, 4.0], dtype=dtype)
    for t in (1e-3, 1e-30, 1e-45, 5e-324):
        assert pick(logits, temperature=t, banned_ids=[2]) == 3
    assert pick(torch.tensor([1.0, 2.0, 2.0], dtype=dtype), temperature=0) == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_no_numbers_are_refused(bad, lm):
    says = r"^the model's scores are not numbers \(NaN .*, or its .* checkpoint$"
    with pytest.raises(ValueError, match=says):
        pick(torch.tensor([0.0, bad, 1.0]), temperature=0)
    broken = TransformerLM(CONFIG)
    torch.nn.init.constant_(broken.final_norm.weight, bad)
    # Only when it is asked for a token can a model turn out to be broken.
    tokens = stream(broken, [1], 3)
    with pytest.raises(ValueError, match="not numbers"):
        next(tokens)


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_where_nothing_is_possible_nothing_is_drawn(temperature):
    says = "^no token is possible: all are banned, or .*; ban fewer$"
    with pytest.raises(ValueError, match=says):
        pick(torch.full((3,), -math.inf), temperature=temperature)
    with pytest.raises(ValueError, match=says):
        pick(torch.zeros(3), temperature=temperature, banned_ids=[0, 1, 2])
    possible = torch.tensor([-math.inf, 0.0, -math.inf])
    assert pick(possible, temperature=temperature) == 1


# A text


def continue_by_a_loop(lm, prompt, n, context_length=9, **settings):
    """The obvious loop: it reads everything again for each token."""
    ids, start = list(prompt), 0
    random = torch.Generator().manual_seed(settings.pop("seed", 0))
    for _ in range(n):
        if len(ids) - start > context_length:
            start = len(ids) - math.ceil(context_length / 2)
        logits = lm(torch.tensor([ids[start:]]))[0, -1].detach()
        ids.append(pick(logits, **settings, random=random))
    return ids[len(prompt) :]


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("prompt", [[5], [3, 1, 4, 1], list(range(9))])
@pytest.mark.parametrize(
    "chosen",
    [
        {"temperature": 0},
        {"seed": 3},
        {"seed": 4, "temperature": 1.5, "top_k": 9, "top_p": 0.9, "banned_ids": [7]},
    ],
    ids=["greedy", "plain", "everything"],
)
def test_a_text_is_that_of_a_loop_with_and_without_a_cache(
    lm, prompt, chosen, use_cache
):
    # 25 tokens outgrow a context of nine more than once.
    found = generate(lm, prompt, 25, use_cache=use_cache, **chosen)
    assert found == continue_by_a_loop(lm, prompt, 25, **chosen)


@pytest.mark.parametrize("chosen", [{}, {"temperature": 1.5, "top_k": 9}])
def test_the_plain_loop_writes_the_same(lm, chosen):
    naive = generate_naive(lm, [3, 1, 4], 6, seed=4, **chosen)
    assert naive == generate(lm, [3, 1, 4], 6, seed=4, **chosen)
    assert naive == continue_by_a_loop(lm, [3, 1, 4], 6, seed=4, **chosen)


def test_the_seed_is_the_only_chance(lm):
    def draw(seed):
        return generate(lm, [1, 2], 15, seed=seed)

    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert draw(7) == draw(7)
    assert len({tuple(draw(seed)) for seed in range(5)}) == 5
    assert draw(None) != draw(None)
    # Sampling elsewhere in the program is not disturbed.
    assert torch.equal(torch.get_rng_state(), before)


def test_each_token_is_read_once():
    cached, uncached = Script([5, 6, 7, 8]), Script([5, 6, 7, 8])
    assert generate(cached, [1, 2, 3], 4) == [5, 6, 7, 8]
    assert generate(uncached, [1, 2, 3], 4, use_cache=False) == [5, 6, 7, 8]
    assert cached.read == [[1, 2, 3], [5], [6], [7]]
    assert uncached.read == [[1, 2, 3, *[5, 6, 7][:n]] for n in range(4)]


def test_a_text_that_outgrows_the_context_keeps_its_last_half():
    lm = Script([10, 11, 12, 13, 14, 15], context_length=5)
    generate(lm, [1, 2, 3], 6)
    assert lm.read == [[1, 2, 3], [10], [11], [10, 11, 12], [13], [14]]
    # Of an even context, the text that is one too long keeps exactly half.
    even = Script([10, 11, 12, 13], context_length=4)
    generate(even, [1, 2, 3], 4)
    assert even.read == [[1, 2, 3], [10], [10, 11], [12]]
    tiny = Script([10, 11, 12], context_length=1)
    generate(tiny, [1], 3)
    assert tiny.read == [[1], [10], [11]]


def test_tokens_come_as_they_are_drawn():
    lm = Script(range(10, 20))
    tokens = stream(lm, [1], 10)
    assert not lm.read
    assert list(islice(tokens, 2)) == [10, 11]
    assert len(lm.read) == 2


def test_a_stop_id_ends_the_text_and_is_not_in_it():
    assert generate(Script([7, 8, 9, 7]), [9], 4, stop_ids=[9]) == [7, 8]
    assert generate(Script([9]), [1], 4, stop_ids={9, 8}) == []
    assert generate(Script([7, 8]), [1], 2, stop_ids=[9]) == [7, 8]
    lm = Script([])
    assert generate(lm, [1], 0) == []
    assert not lm.read


def test_banned_ids_are_never_drawn(lm):
    banned = set(range(1, 23)) - {4, 11}
    drawn = generate(lm, [1], 150, seed=0, temperature=50.0, banned_ids=banned)
    assert set(drawn) == {0, 4, 11}
    assert generate(Script([5, 5]), [1], 2, temperature=0, banned_ids=[5]) == [0, 0]


# Pieces of text


@pytest.fixture(scope="module")
def tokenizer():
    return BPETokenizer.train(["a rose is a rose"], 262, ["<|endoftext|>"])


def test_a_cut_character_is_held_back(tokenizer):
    said = list("né😀".encode()) + list(b"!")
    pieces = list(stream_text(Script(said), tokenizer, "a", len(said), temperature=0))
    assert pieces == ["n", "é", "😀", "!"]
    # One that never ends is shown as what it is, once the text is over.
    assert list(stream_text(Script(said), tokenizer, "a", 2)) == ["n", "\ufffd"]
    assert "".join(stream_text(Script([255, 110]), tokenizer, "a", 2)) == "\ufffdn"


def test_a_text_ends_at_its_mark(tokenizer):
    end = tokenizer.special_tokens["<|endoftext|>"]
    lm = Script([104, 105, end, 104])
    assert "".join(stream_text(lm, tokenizer, "", 4)) == "hi"
    # An empty prompt stands for the beginning of a text.
    assert lm.read[0] == [end]
    # In a prompt, the mark is text like any other.
    lm = Script([104])
    list(stream_text(lm, tokenizer, "<|endoftext|>", 1))
    assert lm.read[0] == tokenizer.encode("<|endoftext|>") != [end]
    # Some models want to read certain ids before anything else.
    lm = Script([104])
    list(stream_text(lm, tokenizer, "a", 1, begin_ids=[end]))
    assert lm.read[0] == [end, *tokenizer.encode("a")]


def test_a_caller_may_choose_where_a_text_ends(tokenizer):
    end = tokenizer.special_tokens["<|endoftext|>"]
    lm = Script([104, end, 105, 106])
    text = "".join(stream_text(lm, tokenizer, "a", 4, stop_ids=[106]))
    assert text == "h<|endoftext|>i"


def test_ids_without_a_token_are_never_drawn(tokenizer):
    # The model has 300 rows, the tokenizer 262 tokens.
    lm = Script([280] * 300)
    text = "".join(stream_text(lm, tokenizer, "a", 300, seed=0, banned_ids=[65]))
    assert len(set(text)) > 50
    assert "A" not in text


def test_an_empty_prompt_needs_a_mark():
    bytes_only = BPETokenizer.train(["a"], 256)
    with pytest.raises(ValueError, match="the prompt is empty: give at least one id"):
        stream_text(Script([]), bytes_only, "", 1)


# Errors


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"ids": []}, "the prompt is empty"),
        ({"ids": [1] * 10}, "at most 9 tokens; the prompt has 10: shorten it"),
        ({"ids": [1, 23]}, "knows the ids 0 to 22; got 23: is this its own tokenizer"),
        ({"ids": [-1]}, "knows the ids 0 to 22; got -1"),
        ({"max_new_tokens": -1}, "max_new_tokens must be 0 or more; got -1"),
        ({"temperature": -0.5}, r"must be 0 or more, and finite; got -0\.5: 1 changes"),
        ({"temperature": math.nan}, "temperature must be .*; got nan"),
        ({"temperature": math.inf}, "temperature must be .*; got inf"),
        ({"top_k": 0}, "top_k must be at least 1; got 0"),
        ({"top_p": 0.0}, r"top_p must lie in \(0, 1\]; got 0\.0: 1 keeps every token"),
        ({"top_p": 1.01}, r"top_p must lie in \(0, 1\]; got 1\.01"),
        ({"top_p": math.nan}, r"top_p must lie in \(0, 1\]; got nan"),
        ({"top_p": 0.0, "temperature": 0}, "top_p must lie in"),
        ({"top_k": -3, "temperature": 0}, "top_k must be at least 1; got -3"),
        ({"banned_ids": [23]}, "knows the ids 0 to 22; got 23"),
        ({"banned_ids": range(23)}, "every id is banned: leave at least one"),
    ],
    ids=str,
)
def test_what_cannot_be_generated_is_refused_at_once(lm, chosen, message):
    arguments = {"ids": [1], "max_new_tokens": 3, **chosen}
    for function in (generate, stream):
        # The error comes from the call, not from the first token.
        with pytest.raises(ValueError, match=message):
            function(lm, **arguments)


# A tokenizer knows what stands around a text


def test_a_text_begins_and_ends_as_its_tokenizer_says(tokenizer):
    lm = TransformerLM(ModelConfig(tokenizer.vocab_size, 32, 8, 1, 2))
    own = BPETokenizer(
        tokenizer.vocab,
        tokenizer.merges,
        tokenizer.special_tokens,
        begin_ids=[5, 6],
        stop_ids=[7, 8],
    )
    read = []
    lm.register_forward_pre_hook(lambda _, args: read.append(args[0][0].tolist()))
    text = own.encode("the")
    assert list(stream_text(lm, own, "the", 1, temperature=0)) != []
    assert read.pop() == [5, 6, *text]
    # Ids are read as they are.
    assert list(stream_text(lm, own, text, 1, temperature=0)) != []
    assert read.pop() == text
    with pytest.raises(ValueError, match="at least one"):
        stream_text(lm, BPETokenizer({0: b"a"}, []), "", 1)
    first = generate(lm, [5, 6, *text], 1, temperature=0)
    own.stop_ids = first
    assert list(stream_text(lm, own, "the", 9, temperature=0)) == []
    assert list(stream_text(lm, own, "the", 1, temperature=0, stop_ids=[])) != []


def test_a_memory_is_of_one_model(lm):
    memory, other = Memory(), copy.deepcopy(lm)
    generate(lm, [1, 2, 3], 3, seed=0, memory=memory)
    with pytest.raises(ValueError, match=r"another model has read these 5 tokens"):
        stream(other, [1, 2, 3, 4], 5, memory=memory)  # at once
    for reads in (lambda m, c: m(torch.tensor([[1]]), c), read_one, decode_one):
        with pytest.raises(ValueError, match="start a new KVCache, or a new Memory"):
            reads(other, memory.cache)
    # What is forgotten belongs to nobody.
    memory.cache.cut(0)
    ids = torch.tensor([[1, 2]])
    assert torch.equal(other(ids, memory.cache), other(ids))


def read_one(model, cache):
    return read_prompt(model, [1], cache)


def decode_one(model, cache):
    return Decoder(model)(1, cache)


@pytest.mark.parametrize(
    "ids", [np.array([0], np.uint16), torch.tensor([0]), iter([0]), range(1)]
)
def test_ids_of_other_libraries_become_integers(ids):
    found = check_prompt(ids, CONFIG)
    assert (found, type(found[0])) == ([0], int)


@pytest.mark.parametrize(
    "ids", [np.array([1.7]), torch.tensor([1.0]), "1", iter([2.0])]
)
def test_ids_are_never_rounded(ids):
    with pytest.raises(ValueError, match=r"^ids are integers; got .*: encode the text"):
        check_prompt(ids, CONFIG)


def test_only_ids_that_there_are_can_be_banned():
    with pytest.raises(ValueError, match="the ids 0 to 2; got -1"):
        pick(torch.zeros(3), banned_ids=[-1])


def test_a_decoder_can_be_kept(lm, monkeypatch):
    decoder = Decoder(lm)
    expected = generate(lm, [1, 2], 9, seed=0)
    monkeypatch.setattr(Decoder, "__init__", None)  # none is made
    assert generate(lm, [1, 2], 9, seed=0, decoder=decoder) == expected
    with pytest.raises(ValueError, match="the decoder is of another model"):
        generate(copy.deepcopy(lm), [1, 2], 9, decoder=decoder)
