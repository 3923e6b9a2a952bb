"""One skill, asked for in many ways: the prompts, the scoring, what is committed."""

import torch

from minillm.bpe import BPETokenizer
from minillm.config import ModelConfig
from minillm.labs.wordings import (
    ORDERS,
    QUESTIONS,
    WORDINGS,
    committed_answers,
    measure,
    question,
    says,
    with_examples,
    worded,
)
from minillm.model import TransformerLM


def test_questions_are_sums_that_a_seed_makes():
    made = [question(i) for i in range(QUESTIONS)]
    assert made == [question(i) for i in range(QUESTIONS)]
    assert len({(q.a, q.b) for q in made}) == QUESTIONS
    for q in made:
        assert 1 <= q.a <= 9 and 1 <= q.b <= 9


def test_every_way_asks_for_the_same_sum():
    q = question(3)
    for wording in WORDINGS:
        prompt = worded(wording)(q)
        assert (
            str(q.a) in prompt and str(q.b) in prompt and str(q.a + q.b) not in prompt
        )
    assert len(set(ORDERS)) == 6
    prompts = {with_examples(order)(q) for order in ORDERS}
    assert len(prompts) == 6
    # The same examples in another order, so the same letters.
    assert len({tuple(sorted(prompt)) for prompt in prompts}) == 1


class Calculator(TransformerLM):
    """Gives each next byte of the right result all the probability."""

    after = "\n"

    def forward(self, ids, cache=None):
        logits = torch.zeros(*ids.shape, 256)
        for row, answer in zip(ids, logits, strict=True):
            text = bytes(row.tolist()).decode().rstrip("\0")
            for t in range(1, len(text) + 1):
                asked = text[:t].rstrip(" 0123456789")
                if asked.endswith("="):
                    a, b = (int(x) for x in asked[:-1].split("\n")[-1].split("+"))
                    said = text[len(asked) : t]
                    rest = f" {a + b}".removeprefix(said)
                    answer[t - 1, ord((rest + self.after)[0])] = 20.0
        return logits


def test_the_right_result_wins_where_the_model_can_add():
    tokenizer = BPETokenizer({i: bytes([i]) for i in range(256)}, [])
    config = ModelConfig(256, 64, 8, 1, 2)
    assert measure(Calculator(config), tokenizer, worded(WORDINGS[0]), 5) == [1] * 5
    assert sum(measure(TransformerLM(config), tokenizer, worded(WORDINGS[0]), 5)) == 0


def test_a_longer_number_is_another_number():
    tokenizer = BPETokenizer({i: bytes([i]) for i in range(256)}, [])
    model = Calculator(ModelConfig(256, 64, 8, 1, 2))
    # Of different lengths, so that the first is padded.
    sums = ["2 + 2 =", "2 + 2 =", "9 + 6 ="]
    assert says(model, tokenizer, sums, [" 4", " 5", " 15"]) == [True, False, True]
    assert says(model, tokenizer, sums, [" 41", " 4", " 1"]) == [False, True, False]
    model.after = "0"
    assert says(model, tokenizer, sums[:1], [" 4"]) == [False]


def test_what_is_committed_is_whole():
    found = committed_answers("SmolLM2-135M-Instruct.Q4_1")
    assert [len(found[kind]) for kind in ("wordings", "orders")] == [5, 6]
    for rows in found.values():
        assert {len(row) for row in rows} == {QUESTIONS}
        assert {x for row in rows for x in row} == {0, 1}
