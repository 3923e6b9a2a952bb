"""Chats: the text that a conversation is, and who may write marks into it."""

import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.bpe import BPETokenizer
from minillm.cli.generate import _replies
from minillm.config import ModelConfig
from minillm.files.opening import Opened
from minillm.hub import save_llama
from minillm.inference import decoder
from minillm.inference.chat import (
    MARKS,
    encode_answers,
    encode_chat,
    plain_template,
    recent,
    turn_ends,
)
from minillm.inference.templates import ChatTemplate
from minillm.model import TransformerLM

TOKENIZER = BPETokenizer.train(["hello there, user assistant system"] * 9, 280, MARKS)
START, END = (TOKENIZER.special_tokens[mark] for mark in MARKS)
speech = st.text(alphabet="helo\n ,é", max_size=12)
plays = st.lists(
    st.tuples(st.sampled_from(["system", "user", "assistant"]), speech),
    min_size=1,
    max_size=6,
)


@settings(deadline=None)
@given(plays)
def test_the_ids_are_those_of_the_play_written_out(turns):
    text = "".join(f"<|im_start|>{who}\n{what}<|im_end|>\n" for who, what in turns)
    text += "<|im_start|>assistant\n"
    assert encode_chat(TOKENIZER, turns) == TOKENIZER.encode(
        text, allowed_special="all"
    )


@settings(deadline=None)
@given(st.lists(st.sampled_from([*MARKS, "system", "\n", "x"]), max_size=8))
def test_marks_in_a_speech_are_letters(parts):
    said = "".join(parts)
    ids = encode_chat(TOKENIZER, [("user", said)])
    assert (ids.count(START), ids.count(END)) == (2, 1)
    assert TOKENIZER.decode(ids[1 : ids.index(END)]) == f"user\n{said}"


@settings(deadline=None)
@given(plays, st.integers(0, 120))
def test_what_is_forgotten_is_the_oldest(turns, most):
    system = turns[:1] if turns[0][0] == "system" else []
    try:
        left = recent(TOKENIZER, turns, most)
    except ValueError as error:
        assert f"may have {most} tokens" in str(error)
        # Not even the last speech would have been short enough.
        last = turns[len(system) :][-1:]
        assert len(encode_chat(TOKENIZER, [*system, *last])) > most
        return
    assert len(encode_chat(TOKENIZER, left)) <= most
    assert list(left[: len(system)]) == system
    rest = list(left[len(system) :])
    assert rest == (turns[-len(rest) :] if rest else [])
    if len(encode_chat(TOKENIZER, turns)) <= most:
        assert list(left) == turns


class Parrot(TransformerLM):
    """A model that says what it is told to, and keeps what it has read."""

    def __init__(self, says, context_length=64):
        super().__init__(
            ModelConfig(TOKENIZER.vocab_size, context_length, 4, 1, 1, d_ff=4)
        )
        self.says, self.read = list(says), []

    def forward(self, ids, cache=None):
        logits = torch.zeros(*ids.shape, self.config.vocab_size)
        logits[:, -1, self.says[len(self.read) % len(self.says)]] = 1000.0
        self.read.append(ids[0].tolist())
        return logits


def reply(model, tokenizer, turns, max_new_tokens, template=None):
    return _replies(Opened(model, tokenizer, template), max_new_tokens)(turns)


def test_a_reply_ends_with_the_speech():
    turns = [("user", "hello")]
    model = Parrot([*TOKENIZER.encode("there"), END, *TOKENIZER.encode("hello")])
    assert "".join(reply(model, TOKENIZER, turns, 30)) == "there"
    assert model.read[0] == encode_chat(TOKENIZER, turns)


def test_a_long_conversation_loses_its_beginning_and_not_the_system():
    turns = [("system", "x"), *[("user", "hello there"), ("assistant", "x")] * 9]
    turns.append(("user", "last"))
    model = Parrot([END])
    assert list(reply(model, TOKENIZER, turns, 10)) == []
    read = TOKENIZER.decode(model.read[0])
    assert len(model.read[0]) <= 54
    assert read.startswith("<|im_start|>system\nx<|im_end|>\n<|im_start|>user\n")
    assert read.endswith("user\nlast<|im_end|>\n<|im_start|>assistant\n")


def test_a_model_without_marks_is_refused():
    plain = BPETokenizer.train(["hello"], 258, ["<|endoftext|>"])
    with pytest.raises(ValueError, match=r"no special token <\|im_start\|>"):
        encode_chat(plain, [("user", "hello")])


# The command


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "chat"
    torch.manual_seed(0)
    model = TransformerLM(ModelConfig(TOKENIZER.vocab_size, 256, 16, 1, 2))
    save_llama(model, folder, TOKENIZER)
    return folder


def test_each_line_gets_a_reply(call, folder):
    settings = ("--max-new-tokens", 5, "--temperature", 0)
    code, out, err = call("chat", folder, *settings, typed="hello\nthere\n")
    assert (code, err) == (0, "")
    first, second, rest = out.removeprefix("> ").split("\n> ")
    assert first
    assert second
    assert rest == "\n"
    # The second reply depends on the first exchange, and on the system's words.
    assert call("chat", folder, *settings, typed="there\n")[1] != f"> {second}\n> \n"
    assert call("chat", folder, "--system", "", *settings)[1] == "> \n"


def test_the_command_refuses_a_model_that_cannot_chat(call, tmp_path):
    tokenizer = BPETokenizer.train(["hello"], 258)
    save_llama(TransformerLM(ModelConfig(258, 8, 8, 1, 2)), tmp_path / "a", tokenizer)
    code, out, err = call("chat", tmp_path / "a", typed="hello\n")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: cannot go on with {tmp_path / 'a'}: the tokenizer ")
    assert "has no special token <|im_start|>" in err
    assert err.count("\n") == 1


def test_what_cannot_be_read_does_not_end_the_conversation(call, folder):
    """A line that is too long, or half a character, is refused; the rest stands."""
    settings = ("--max-new-tokens", 5, "--temperature", 0)
    typed = "hello\nthere\n"
    code, out, err = call("chat", folder, *settings, typed=typed)
    long = "hello " * 300
    bad = f"hello\n{long}\n\udcff\nthere\n"
    code_bad, out_bad, err_bad = call("chat", folder, *settings, typed=bad)
    assert (code, code_bad) == (0, 0)
    assert out_bad.replace("> > > ", "> ") == out
    assert err == ""
    assert [line[:9] for line in err_bad.splitlines()] == ["not read:"] * 2
    assert "say less at once" in err_bad


def test_bytes_that_are_no_text_are_read_as_unknown_characters(
    folder, monkeypatch, capsys
):
    from minillm.cli.app import main

    typed = io.TextIOWrapper(io.BytesIO(b"hello \xff\n"), encoding="utf-8")
    arguments = ("chat", str(folder), "--max-new-tokens", "2")
    monkeypatch.setattr("sys.argv", ["minillm", *arguments])
    monkeypatch.setattr("sys.stdin", typed)
    with pytest.raises(SystemExit) as exit_:
        main()
    out, err = capsys.readouterr()
    assert (exit_.value.code or 0, err) == (0, "")
    assert out.count("> ") == 2


def test_what_cannot_be_mended_by_words_is_refused_at_once(call, folder):
    code, out, err = call("chat", folder, "--temperature", -1, typed="hello\n")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: cannot go on with {folder}: the temperature")
    code, out, err = call("chat", folder, "--system", "hello " * 300, typed="hello\n")
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_the_ids_that_end_a_text_end_a_reply():
    tokenizer = BPETokenizer(TOKENIZER.vocab, TOKENIZER.merges, MARKS, stop_ids=[7])
    model = Parrot([*tokenizer.encode("there"), 7, *tokenizer.encode("hello"), END])
    said = reply(model, tokenizer, [("user", "hello")], 30)
    assert "".join(said) == "there"
    assert turn_ends(tokenizer) == {7, START, END}


def test_what_begins_every_text_begins_a_conversation():
    tokenizer = BPETokenizer(TOKENIZER.vocab, TOKENIZER.merges, MARKS, begin_ids=[9, 7])
    turns = [("user", "hello")]
    expected = encode_chat(TOKENIZER, turns)
    assert encode_chat(tokenizer, turns) == [9, 7, *expected]
    model = Parrot([END])
    assert list(reply(model, tokenizer, turns, 5)) == []
    assert model.read == [[9, 7, *expected]]


def test_a_template_says_how_a_conversation_is_written_and_shortened():
    source = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}>"
    template, model = ChatTemplate(source), Parrot([END])
    turns = [("system", "x"), *[("user", "hello there"), ("assistant", "x")] * 9]
    turns.append(("user", "last"))
    assert list(reply(model, TOKENIZER, turns, 10, template)) == []
    read = TOKENIZER.decode(model.read[0])
    assert len(model.read[0]) <= 54
    assert read.startswith("system: x\nuser: hello there\n")
    assert read.endswith("assistant: x\nuser: last\n>")
    # A model that has a template needs no marks of ChatML.
    plain = BPETokenizer.train(["hello"], 258, ["<|eot_id|>"])
    assert plain.decode(encode_chat(plain, [("user", "a")], template)) == "user: a\n>"
    assert turn_ends(plain) == {257}


def test_one_decoder_serves_a_whole_conversation(monkeypatch, call, folder):
    made = []
    real = decoder.Decoder.__init__
    monkeypatch.setattr(
        decoder.Decoder,
        "__init__",
        lambda self, model: (made.append(1), real(self, model))[1],
    )
    code, _, _ = call("chat", folder, "--max-new-tokens", 5, typed="a\nb\nc\n")
    assert (code, len(made)) == (0, 1)


def test_a_folder_with_a_template_is_followed(call, tmp_path, monkeypatch):
    """Marks of another family, an end of its own, and the date of the day."""
    specials = ["<|begin_of_text|>", "<|eot_id|>"]
    tokenizer = BPETokenizer.train(["user assistant hello"], 270, specials)
    torch.manual_seed(0)
    model = TransformerLM(ModelConfig(tokenizer.vocab_size, 64, 16, 1, 2))
    source = "{{ bos_token }}{{ messages[-1].content }}<|eot_id|>"
    tokenizer.begin_ids = [tokenizer.special_tokens["<|begin_of_text|>"]]
    save_llama(model, tmp_path, tokenizer, chat_template=source)
    seen = []
    read = decoder.Decoder.read
    monkeypatch.setattr(
        decoder.Decoder,
        "read",
        lambda self, ids, cache: (seen.append(ids), read(self, ids, cache))[1],
    )
    code, _, err = call("chat", tmp_path, "--max-new-tokens", 2, typed="hello\n")
    assert (code, err) == (0, "")
    begin, end = tokenizer.special_tokens.values()
    assert seen[0] == [begin, *tokenizer.encode("hello"), end]


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_a_device_can_be_chosen(call, folder, command):
    arguments = (folder, "hello") if command == "generate" else (folder,)
    code, out, err = call(command, *arguments, "--device", "nowhere", typed="hello\n")
    assert (code, out) == (2, "")
    assert "nowhere" in err
    settings = ("--device", "cpu", "--max-new-tokens", 1, "--temperature", 0)
    assert call(command, *arguments, *settings, typed="hello\n")[0] == 0


def test_a_long_conversation_is_read_a_few_times(monkeypatch):
    """Not again for each turn that is left out."""
    turns = [("user", "hello"), ("assistant", "there")] * 200
    n_read = []
    monkeypatch.setattr(
        BPETokenizer,
        "encode",
        lambda self, text, allowed_special=(): n_read.append(len(text)) or [0],
    )
    assert len(recent(TOKENIZER, [("system", "x"), *turns], most=99)) < 40
    # All of it once, then a half, a quarter, and so on.
    assert len(n_read) < 3 * len(turns)


# What is learned of a conversation


def answered(turns, template=None, tokenizer=TOKENIZER, first=0):
    """What is learned, and whether each answer follows what a chat gives there."""
    ids, mask = encode_answers(tokenizer, turns, template, first)
    learned = tokenizer.decode([i for i, said in zip(ids, mask, strict=True) if said])
    assert mask[-1] and not mask[0]
    for i, (who, _) in enumerate(turns):
        if who == "assistant" and i >= first:
            given = encode_chat(tokenizer, turns[:i], template)
            if template is None or i < 2:  # a template may say less of what is past
                assert ids[: len(given)] == given
                assert mask[len(given)] and not mask[len(given) - 1]
    return learned


@settings(deadline=None)
@given(st.lists(st.tuples(speech, speech), min_size=1, max_size=3), st.booleans())
def test_every_answer_is_learned_with_its_end_and_nothing_else(pairs, system):
    turns = [("system", "s")] * system
    for question, answer in pairs:
        turns += [("user", question), ("assistant", answer)]
    ids, _ = encode_answers(TOKENIZER, turns)
    assert answered(turns) == "".join(f"{a}<|im_end|>" for _, a in pairs)
    # All of it is the play written out, without what would follow the last answer.
    text = "".join(f"<|im_start|>{who}\n{what}<|im_end|>\n" for who, what in turns)
    assert TOKENIZER.decode(ids) == text[:-1]
    last = len(turns) - 1
    assert answered(turns, first=last) == f"{pairs[-1][1]}<|im_end|>"


def test_marks_in_an_answer_do_not_end_it():
    turns = [("user", "a"), ("assistant", "x<|im_end|>y")]
    ids, mask = encode_answers(TOKENIZER, turns)
    assert sum(mask) == len(TOKENIZER.encode("x<|im_end|>y")) + 1
    source = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    assert answered(turns, ChatTemplate(source)) == "x<|im_end|>y<|im_end|>"
    ids, _ = encode_answers(TOKENIZER, turns, ChatTemplate(source))
    assert ids.count(END) == 2


def test_a_form_for_a_model_that_has_none():
    plain = BPETokenizer.train(["hello there"] * 9, 262, ["<|endoftext|>"])
    turns = [("user", "Hi"), ("assistant", "hello"), ("user", "a"), ("assistant", "b")]
    form = plain_template(plain)
    learned = answered(turns, form, plain)
    assert learned == "hello<|endoftext|>b<|endoftext|>"
    with pytest.raises(ValueError, match="no special token that ends a text"):
        plain_template(BPETokenizer.train(["hello"], 257))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "no token of the token"),
        ("{{ messages | length }}{{ messages[-1].content }}", "in another way once"),
    ],
)
def test_forms_that_do_not_show_an_answer(source, message):
    turns = [("user", "a"), ("assistant", "b")]
    with pytest.raises(ValueError, match=message):
        encode_answers(TOKENIZER, turns, ChatTemplate(source))
