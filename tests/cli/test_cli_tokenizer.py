"""`minillm tokenizer`: what it prints, what it writes, and how it fails."""

import io
import sys
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from minillm.bpe import GPT2_PATTERN, GPT4_PATTERN, O200K_PATTERN, BPETokenizer
from minillm.cli.app import main

END = "<|end|>"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    BPETokenizer.train(["the cat in the hat"] * 2, 260, [END]).save(path)
    return path


@pytest.fixture
def call(monkeypatch, capsysbinary):
    """Run the command in this process: exit code, output, error output."""

    def call(*args, stdin=b""):
        monkeypatch.setattr(sys, "argv", ["minillm", "tokenizer", *map(str, args)])
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as exit_:
            main()
        out, err = capsysbinary.readouterr()
        return exit_.value.code or 0, out.decode(), err.decode()

    return call


# Training.


@pytest.mark.parametrize(
    ("name", "pattern"),
    [("gpt2", GPT2_PATTERN), ("gpt4", GPT4_PATTERN), ("o200k", O200K_PATTERN)],
)
def test_train_is_the_trainer(call, tmp_path, name, pattern):
    texts = ["they've 12345 CAT'S;\n\n" * 3, f"a b{END}a b"]
    files = [tmp_path / "one.txt", tmp_path / "two.txt"]
    for file, text in zip(files, texts, strict=True):
        file.write_bytes(text.encode())
    out = tmp_path / "new.json"
    options = ("--vocab-size", 270, "--special", END, "--special", "<e>")
    options += ("--pattern", name, "--tie-break", "first", "--workers", 2)
    code, printed, err = call("train", *files, "--out", out, *options)
    assert (code, err) == (0, "")
    assert "merging" in printed
    last = "new.json: 270 tokens = 256 bytes + 12 merges + 2 special\n"
    assert printed.endswith(last)
    expected = BPETokenizer.train(
        texts, 270, [END, "<e>"], pattern=pattern, tie_break="first"
    )
    got = BPETokenizer.load(out)
    assert (got.vocab, got.merges) == (expected.vocab, expected.merges)
    assert got.special_tokens == {END: 268, "<e>": 269}
    assert got.pattern == pattern
    assert sorted(tmp_path.iterdir()) == sorted([*files, out])


def test_train_on_the_tales_of_the_package(call, tmp_path):
    code, _, _ = call("train", "--out", tmp_path / "x.json", "--vocab-size", 300)
    assert code == 0
    # As in every English text, the first word is "the".
    assert b" the" in BPETokenizer.load(tmp_path / "x.json").vocab.values()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pattern", "gpt5"], "--pattern is one of gpt2, gpt4, o200k, not 'gpt5'"),
        (["--tie-break", "last"], "tie_break is one of"),
        (["--vocab-size", "255"], "vocab_size is at least 256"),
        (
            ["--special", "<e>", "--special", "<e>"],
            "the special token '<e>' is given twice",
        ),
        (["--special", ""], "a special token is a string that is not empty"),
        (["--workers", "0"], "workers is at least 1, not 0"),
    ],
)
def test_train_refuses(call, tmp_path, options, message):
    text, out = tmp_path / "text.txt", tmp_path / "out.json"
    text.write_bytes(b"the cat")
    code, _, err = call("train", text, "--out", out, *options)
    assert code == 2
    assert err.startswith(f"error: {message}") and err.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "no text to learn from"), (b"the c\xff", "is not UTF-8: byte 5 is 0xff")],
)
def test_train_on_bad_files(call, tmp_path, content, message):
    good, bad, out = (tmp_path / name for name in ("good.txt", "bad.txt", "out.json"))
    good.write_bytes(b"")
    bad.write_bytes(content)
    code, _, err = call("train", good, bad, "--out", out)
    assert code == 2 and message in err and err.count("\n") == 1
    assert not out.exists()


def test_train_finds_out_first_what_would_fail_last(call, tmp_path, monkeypatch):
    monkeypatch.setattr(BPETokenizer, "train", None)
    text = tmp_path / "text.txt"
    text.write_bytes(b"the cat")
    code, _, err = call("train", text, "--out", tmp_path / "nowhere" / "x.json")
    assert code == 2 and "there is no folder" in err and "nowhere" in err
    code, _, err = call("train", text, tmp_path / "none.txt", "--out", "x.json")
    assert code == 2 and "none.txt: No such file" in err


def test_too_little_text_is_said(call, tmp_path, caplog):
    text, out = tmp_path / "text.txt", tmp_path / "out.json"
    text.write_bytes(b"the cat")
    code, printed, _ = call("train", text, "--out", out)
    assert code == 0 and "256 bytes + 5 merges + 0 special" in printed
    assert "learned 5 merges instead of 1792" in caplog.text


# Encoding and decoding.

IDS = "257 32 99 258 60 124 101 110 100 124 62"


def test_encode_from_everywhere(call, path, tmp_path):
    text = "the cat" + END
    file = tmp_path / "text.txt"
    file.write_bytes(text.encode())
    assert call("encode", path, text) == (0, f"{IDS}\n", "")
    assert call("encode", path, "--file", file) == (0, f"{IDS}\n", "")
    assert call("encode", path, stdin=text.encode()) == (0, f"{IDS}\n", "")
    # A folder that holds a tokenizer.json will do.
    assert call("encode", path.parent, text)[1] == f"{IDS}\n"
    special = call("encode", path, text, "--allow-special")
    assert special == (0, "257 32 99 258 259\n", "")
    assert call("encode", path, "")[1] == "\n"


@pytest.mark.parametrize("special", [(), ("--allow-special",)])
def test_encode_into_a_file(call, path, tmp_path, special):
    text = f"the cat{END}\r\n" * 3
    file, out = tmp_path / "text.txt", tmp_path / "ids.npy"
    file.write_bytes(text.encode())
    ours = BPETokenizer.load(path)
    expected = ours.encode(text, "all" if special else ())
    sources = [([text], b""), ([], text.encode()), (["--file", file], b"")]
    sources.append((["--file", file, "--workers", 2], b""))
    for arguments, stdin in sources:
        code, printed, err = call(
            "encode", path, *arguments, "--out", out, *special, stdin=stdin
        )
        assert (code, err) == (0, "")
        assert printed == f"{out}: {len(expected):,} ids\n"
        ids = np.load(out)
        assert ids.tolist() == expected and ids.dtype == np.uint16
        decoded = call("decode", path, "--file", out)
        assert decoded == (0, text, "")
        out.unlink()
    assert list(tmp_path.iterdir()) == [file]


def test_decode_undoes_encode_to_the_byte(call, path):
    text = "naïve 🌍\r\n\n the\ttext"
    ids = call("encode", path, stdin=text.encode())[1]
    assert call("decode", path, stdin=ids.encode()) == (0, text, "")
    assert call("decode", path, *ids.split()) == (0, text, "")


def test_decode_writes_what_is_no_text(call, path, capsysbinary, monkeypatch):
    monkeypatch.setattr(
        sys, "argv", ["minillm", "tokenizer", "decode", str(path), "240"]
    )
    with pytest.raises(SystemExit):
        main()
    assert capsysbinary.readouterr().out == b"\xf0"


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (["encode"], b"the \xff", "standard input is not UTF-8: byte 4 is 0xff"),
        (["encode", "a", "--file", "f"], b"", "give the text or --file, not both"),
        (
            ["encode", "a", "--file", "f", "--out", "x.npy"],
            b"",
            "give the text or --file, not both",
        ),
        (["encode", "--file", "none.txt"], b"", "none.txt: No such file"),
        (["encode", "a", "--workers", "2"], b"", "--workers is for --file and --out"),
        (["decode", "260"], b"", "there is no token 260: the ids"),
        (["decode", "3", "x"], b"", "an id is an integer, not 'x'"),
        (["decode"], b"3 1.5", "an id is an integer, not '1.5'"),
        (["decode", "9", "--file", "f"], b"", "give the ids or --file, not both"),
        (["decode", "--file", "none.npy"], b"", "none.npy: No such file"),
        (["show", "a", "--file", "f"], b"", "give the text or --file, not both"),
        (["show", "--merges"], b"a" * 2001, "at most 2000 characters, not 2001"),
    ],
)
def test_mistakes_take_one_line(call, path, arguments, stdin, message):
    command, *rest = arguments
    code, out, err = call(command, path, *rest, stdin=stdin)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and message in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "array",
    [np.zeros((2, 2), np.int64), np.zeros(3), np.array(["a"]), np.array(5)],
    ids=["two rows", "floats", "strings", "scalar"],
)
def test_decode_refuses_other_arrays(call, path, tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    code, out, err = call("decode", path, "--file", tmp_path / "x.npy")
    assert (code, out) == (
        2,
        "",
    ) and "is not a .npy file with a one-dim" in err


@pytest.mark.parametrize("content", [b"", b"hello", b"\x93NUMPY\x01\x00"])
def test_decode_refuses_other_files(call, path, tmp_path, content):
    (tmp_path / "x.npy").write_bytes(content)
    code, out, err = call("decode", path, "--file", tmp_path / "x.npy")
    assert (code, out) == (2, "") and "is not a .npy file with a one-dim" in err


def test_decode_runs_no_code_of_a_file(call, path, tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("the file ran its code",))

    np.save(tmp_path / "x.npy", np.array([Trap()], object), allow_pickle=True)
    code, _, err = call("decode", path, "--file", tmp_path / "x.npy")
    assert code == 2 and "is not a .npy file with a one-dim" in err


def test_no_tokenizer(call, tmp_path):
    code, _, err = call("encode", tmp_path / "none.json", "a")
    assert code == 2 and "none.json: No such file" in err
    code, _, err = call("encode", tmp_path, "a")
    assert code == 2 and "tokenizer.json: No such file" in err
    (tmp_path / "tokenizer.json").write_bytes(b"{")
    code, _, err = call("encode", tmp_path, "a")
    assert code == 2 and "cannot be read as a tokenizer" in err
    assert err.count("\n") == 1


# Showing.


def test_show_without_colours(call, path):
    assert call("show", path, "the cat 🌍\nhat" + END) == (
        0,
        "the| |c|at| |\\xf0|\\x9f|\\x8c|\\x8d|\\n\n|h|at|<|||e|n|d|||>\n"
        "23 bytes, 19 tokens, 1.21 bytes a token\n",
        "",
    )
    out = call("show", path, "the" + END, "--allow-special")[1]
    assert out.startswith("the|<|end|>\n10 bytes, 2 tokens")
    assert call("show", path, "") == (0, "\n", "")


def test_show_with_colours(call, path, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    line = call("show", path, "the cat")[1].splitlines()[0]
    *tokens, end = line.split("\x1b[0m")
    grounds = [token.split("m")[0] for token in tokens]
    assert [token.split("m")[1] for token in tokens] == ["the", " ", "c", "at"]
    # Neighbours have different grounds.
    assert end == "" and all(a != b for a, b in pairwise(grounds))


def test_show_disarms_what_commands_a_terminal(call, path):
    out = call("show", path, "a\x1b]0;owned\x07[red]b\\n")[1]
    assert "\x1b" not in out and "\x07" not in out
    # What looks like markup, or like an escape, is text.
    first = "a|\\x1b|]|0|;|o|w|n|e|d|\\x07|[|r|e|d|]|b|\\|n"
    assert out.splitlines()[0] == first


def test_show_merges(call, path):
    out = call("show", path, "the bat the the" + END, "--merges", "--allow-special")[1]
    assert out.split("\n\n")[1:] == [
        "the\n  t|h|e\n  th|e   merge 1\n  the   merge 2",
        "·bat\n  ·|b|a|t\n  ·|b|at   merge 3",
        "·the\n  ·|t|h|e\n  ·|th|e   merge 1\n  ·|the   merge 2",
        f"{END}\n  {END}\n",
    ]


def test_show_merges_of_what_is_taken_whole(call, tmp_path):
    vocab = {byte: bytes([byte]) for byte in range(256)} | {256: b"ab", 257: b"abc"}
    tokenizer = BPETokenizer(vocab, [(b"a", b"b")], ignore_merges=True)
    tokenizer.save(tmp_path / "tokenizer.json")
    out = call("show", tmp_path, "abc", "--merges")[1]
    assert out.endswith("  a|b|c\n  ab|c   merge 1\n  abc   a token, taken whole\n")


def test_show_merges_twice_the_same_merge(call, path):
    out = call("show", path, "thth", "--merges")[1]
    assert out.endswith("  t|h|t|h\n  th|t|h   merge 1\n  th|th   merge 1\n")
