"""What the tests of the tokenizer share: texts, strategies, and other programs."""

import json
import unicodedata

import pytest
from hypothesis import strategies as st

from minillm.bpe import GPT2_PATTERN, GPT4_PATTERN, O200K_PATTERN
from minillm.tokenizer.parts import to_characters
from minillm.tokenizer.patterns import DIGITS_PATTERN, LLAMA3_PATTERN

PATTERNS = {
    "gpt2": GPT2_PATTERN,
    "gpt4": GPT4_PATTERN,
    "o200k": O200K_PATTERN,
    "llama3": LLAMA3_PATTERN,
    "digits": DIGITS_PATTERN,
}


TIE_BREAKS = ("bytes", "first", "huggingface")


END = "<|endoftext|>"


# Characters at which the patterns turn: letters of all cases, marks, digits of several
# scripts, punctuation, every kind of space, and what only looks like one.
TURNS = (
    " \n\r\t\0\u00a0\u2028\u3000\x85\x1c'’sStTlLdDvVeErRmM.,/-_<|>0123٣½Ⅷ²"
    "aAéßſKǅʰªкК中日あ한हिा\u0301\u200d😀🌍"
)


def settled(text):
    """A text without the characters that are younger than Unicode 3.2 (of 2002).

    Each engine of regular expressions has its own table of Unicode, and they are of
    different years.
    """
    category = unicodedata.ucd_3_2_0.category
    return "".join(c for c in text if category(c) not in {"Cn", "Co", "Cs"})


text_at_turns = st.text(st.sampled_from(TURNS), max_size=20)


any_text = st.text(max_size=30) | text_at_turns


small_text = st.text(st.sampled_from("ab c"), max_size=30)


patterns = st.sampled_from([*PATTERNS.values(), r"\w+|\W+", r"[ab]+", r"x*", r"(a)|b"])


# Under these names tiktoken looks for its files (the sha1 of where they come from).
TIKTOKEN_CACHE = {
    "gpt2/vocab.bpe": "6d1cbeee0f20b3d9449abfede4726ed8212e3aee",
    "gpt2/encoder.json": "6c7ea1a7e38e3a7f062df639a5b80947f075ffe6",
    "r50k_base.tiktoken": "0ea1e91bbb3a60f729a8dc8f777fd2fc07cd8df4",
    "cl100k_base.tiktoken": "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
    "o200k_base.tiktoken": "fb374d419588a4632f3f557e76b4b70aebbca790",
}


TIKTOKEN_PATTERNS = {
    "r50k_base": GPT2_PATTERN,
    "cl100k_base": GPT4_PATTERN,
    "o200k_base": O200K_PATTERN,
}


def saved(tokenizer, path):
    tokenizer.save(path)
    tokenizers = pytest.importorskip("tokenizers")
    return tokenizers.Tokenizer.from_file(str(path))


def their_ids(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False).ids


def pre_tokenizer(kind):
    from tokenizers import Regex, pre_tokenizers

    if kind == "gpt2":
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    if kind == "smollm2":
        steps = [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    else:
        steps = [
            pre_tokenizers.Split(Regex(LLAMA3_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    return pre_tokenizers.Sequence(steps)


def hugging_face_trainer(documents, vocab_size, specials=()):
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    byte_level = tokenizers.pre_tokenizers.ByteLevel
    tokenizer.pre_tokenizer = byte_level(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(specials),
        initial_alphabet=byte_level.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer


def their_merges(tokenizer):
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


def in_characters(merges):
    return [(to_characters(left), to_characters(right)) for left, right in merges]
