"""A string is a list of strings to Python, and to no public function of ours."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minillm.bpe import BPETokenizer, train_bpe, train_bpe_naive
from minillm.config import ModelConfig
from minillm.corpus.clean import clean
from minillm.corpus.contamination import contaminated
from minillm.corpus.prepare import prepare
from minillm.corpus.quality import Classifier
from minillm.data import END_OF_TEXT, split, tokenize
from minillm.inference.choices import choice_log_likelihoods, score_choices
from minillm.labs.wordings import says
from minillm.model import TransformerLM
from minillm.runs.demo import known_words, run_demo
from minillm.tokenizer.encoding import encode_batch, encode_each
from minillm.tokenizer.formats import read_tiktoken_file
from minillm.tokenizer.leaks import show_merges
from minillm.tokenizer.learning import check_training
from minillm.tokenizer.parts import place_specials
from minillm.tokenizer.streams import check_specials
from minillm.training.lora import add_lora
from tests.test_public import public

LIST = re.compile(r"\b(Iterable|Sequence|Collection|list)\[str\b")

TEXT = "the cat"
BYTES = BPETokenizer({i: bytes([i]) for i in range(256)}, [], [END_OF_TEXT])
MODEL = TransformerLM(ModelConfig(257, 16, 8, 1, 2))


def new() -> BPETokenizer:
    return BPETokenizer.train([TEXT], 256)


# What refuses a string, by the function and its parameter.
REFUSED: dict[str, Callable[[], Any]] = {
    "bpe.train_bpe_naive special_tokens": lambda: train_bpe_naive([TEXT], 300, TEXT),
    "corpus.clean.clean paths": lambda: clean(TEXT, "nowhere"),
    "corpus.clean.clean apart": lambda: clean([], "nowhere", apart=TEXT),
    "corpus.contamination.contaminated train": lambda: contaminated(TEXT, [TEXT], 2),
    "corpus.contamination.contaminated test": lambda: contaminated([TEXT], TEXT, 2),
    "corpus.prepare.prepare paths": lambda: prepare(TEXT, "nowhere"),
    "corpus.quality.Classifier.fit good": lambda: Classifier.fit(TEXT, [TEXT]),
    "corpus.quality.Classifier.fit bad": lambda: Classifier.fit([TEXT], TEXT),
    "corpus.quality.Classifier.scores texts": lambda: Classifier.fit(
        [TEXT], ["no"]
    ).scores(TEXT),
    "data.split documents": lambda: split(TEXT),
    "data.tokenize documents": lambda: tokenize(TEXT, BYTES),
    "inference.choices.choice_log_likelihoods choices": lambda: choice_log_likelihoods(
        MODEL, BYTES, "a", "bc"
    ),
    "inference.choices.score_choices choices": lambda: score_choices(
        MODEL, BYTES, "a", "bc"
    ),
    "labs.wordings.says prompts": lambda: says(MODEL, BYTES, "ab", ["c", "d"]),
    "labs.wordings.says answers": lambda: says(MODEL, BYTES, ["a", "b"], "cd"),
    "runs.demo.known_words texts": lambda: known_words(TEXT, [TEXT]),
    "runs.demo.known_words corpus": lambda: known_words([TEXT], TEXT),
    "tokenizer.encoding.encode_batch texts": lambda: encode_batch(new(), TEXT, 1, ()),
    "tokenizer.encoding.encode_each texts": lambda: list(
        encode_each(new(), TEXT, None, ())
    ),
    "tokenizer.leaks.show_merges allowed_special": lambda: show_merges(
        BYTES, TEXT, END_OF_TEXT
    ),
    "tokenizer.learning.check_training special_tokens": lambda: check_training(
        [TEXT], 300, TEXT, "bytes"
    ),
    "tokenizer.learning.train_bpe special_tokens": lambda: train_bpe([TEXT], 300, TEXT),
    "tokenizer.parts.place_specials special_tokens": lambda: place_specials(
        {}, [], TEXT
    ),
    "tokenizer.streams.check_specials special_tokens": lambda: check_specials(TEXT),
    "tokenizer.tokenizer.BPETokenizer special_tokens": lambda: BPETokenizer(
        {0: b"a"}, [], TEXT
    ),
    "tokenizer.tokenizer.BPETokenizer.train special_tokens": lambda: BPETokenizer.train(
        [TEXT], 300, TEXT
    ),
    "tokenizer.tokenizer.BPETokenizer.encode_batch texts": lambda: BYTES.encode_batch(
        TEXT
    ),
    **{
        f"tokenizer.tokenizer.BPETokenizer.{name} allowed_special": (
            lambda name=name, first=first: list(
                getattr(BYTES, name)(*first, allowed_special=END_OF_TEXT)
            )
        )
        for name, first in {
            "encode": [TEXT],
            "pre_tokens": [TEXT],
            "encode_iterable": [[TEXT]],
            "encode_batch": [[TEXT]],
            "encode_file": ["nowhere", "nowhere"],
        }.items()
    },
    "training.lora.add_lora where": lambda: add_lora(MODEL, 2, where="q_proj"),
}

# What takes one, and why.
TAKEN = {
    "a path": (
        "bpe.train_bpe_naive source",
        "tokenizer.counting.count_words source",
        "tokenizer.learning.check_training source",
        "tokenizer.learning.train_bpe source",
        "tokenizer.streams.source_documents source",
        "tokenizer.tokenizer.BPETokenizer.train source",
    ),
    "a text in parts, cut anywhere": (
        "tokenizer.streams.safe_pieces stream",
        "tokenizer.tokenizer.BPETokenizer.encode_iterable chunks",
    ),
    "made by what calls it": (
        "corpus.quality.Measures words",
        "corpus.quality.Measures lines",
        "corpus.signatures.polynomials words",
        "flops.aligned rows",
        "labs.learners.Learner.sample problems",
        "runs.demo.Text training",
        "runs.two_models.compare_models sources",
        "runs.two_models.compare_models names",
        "tokenizer.parallel.batches texts",
    ),
    "refused below": (
        "runs.demo.run_demo documents",
        "tokenizer.formats.read_tiktoken_file special_tokens",
        "tokenizer.tokenizer.BPETokenizer.from_tiktoken_file special_tokens",
    ),
}


def lists() -> set[str]:
    """Every parameter of a public function or method that wants a list of strings."""
    found = set()
    for name, thing in public():
        if name.startswith(("cli.", "drawing.", "exercises.")):
            continue  # programs: what they are given is not a reader's
        parts = {name: thing}
        if inspect.isclass(thing):
            parts |= {
                f"{name}.{method}": getattr(thing, method)
                for method in vars(thing)
                if not method.startswith("_") and callable(getattr(thing, method))
            }
        for part, function in parts.items():
            parameters = inspect.signature(function).parameters.values()
            found |= {
                f"{part} {p.name}" for p in parameters if LIST.search(str(p.annotation))
            }
    return found


def test_every_list_of_strings_is_spoken_for() -> None:
    taken = {name for names in TAKEN.values() for name in names}
    assert lists() - taken - REFUSED.keys() == set()
    assert taken | REFUSED.keys() <= lists()


@pytest.mark.parametrize("name", REFUSED)
def test_a_string_is_no_list(name: str) -> None:
    with pytest.raises(ValueError, match=r"not the string '.*'; write [{[]'"):
        REFUSED[name]()


def test_a_string_is_no_list_of_documents_or_tokens(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="documents is a list of strings"):
        run_demo(tmp_path / "demo", documents=TEXT)
    ranks = tmp_path / "small.tiktoken"
    ranks.write_text("YQ== 0\n", encoding="utf-8")
    for read in (read_tiktoken_file, BPETokenizer.from_tiktoken_file):
        with pytest.raises(ValueError, match="special_tokens is a list of strings"):
            read(ranks, "a", TEXT)


def test_a_long_string_is_shown_by_its_beginning() -> None:
    with pytest.raises(ValueError, match=r"not the string 'a{37}\.\.\.'; write"):
        split("a" * 1000)
