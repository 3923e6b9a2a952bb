"""The command line: what it prints, and how it fails."""

import re
import subprocess
import sys

import pytest
import torch

from minillm.bpe import BPETokenizer
from minillm.config import ModelConfig
from minillm.data import END_OF_TEXT
from minillm.hub import save_llama
from minillm.model import TransformerLM


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small untrained run."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    torch.manual_seed(0)
    tokenizer = BPETokenizer.train(["the cat in the hat"] * 9, 260, [END_OF_TEXT])
    config = ModelConfig(tokenizer.vocab_size, 32, d_model=16, n_layers=1, n_heads=2)
    save_llama(TransformerLM(config), folder, tokenizer)
    return folder


def test_help_lists_the_commands(call):
    code, out, _ = call("--help")
    assert code == 0
    assert "demo" in out
    assert "generate" in out


@pytest.mark.parametrize("command", ["demo", "generate"])
def test_help_of_each_command(call, command):
    code, out, _ = call(command, "--help")
    assert code == 0
    assert "Usage" in out


def test_version(call):
    from minillm import __version__

    assert call("--version") == (0, f"minillm {__version__}\n", "")


def test_module_and_command_are_the_same():
    """`python -m minillm` from anywhere; the one test that pays for a new process."""
    done = subprocess.run(
        [sys.executable, "-m", "minillm", "generate", "nowhere"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == ("error: there is no folder nowhere: train a model first\n")
    assert done.stdout == ""


def test_generate_continues_the_prompt(call, run):
    options = ("--seed", 1, "--max-new-tokens", 20)
    code, out, err = call("generate", run, "the cat", *options)
    assert (code, err) == (0, "")
    assert out.startswith("the cat")
    assert len(out) > len("the cat\n")
    assert call("generate", run, "the cat", *options)[1] == out
    assert (
        call("generate", run, "the cat", "--seed", 2, "--max-new-tokens", 20)[1] != out
    )


def test_generate_options_reach_the_sampler(call, run):
    def text(*options):
        return call("generate", run, "the", "--max-new-tokens", 15, *options)[1]

    greedy = text("--temperature", 0)
    assert greedy == text("--temperature", 0, "--seed", 5)
    # One token to choose from is greedy again, whatever the chance.
    assert greedy == text("--top-k", 1, "--seed", 3)
    assert greedy == text("--top-p", 1e-9, "--seed", 4)
    assert call("generate", run, "the", "--max-new-tokens", 0)[1] == "the\n"


def test_an_empty_prompt_starts_a_text(call, run):
    code, out, _ = call("generate", run, "--seed", 1, "--max-new-tokens", 5)
    assert code == 0
    assert out.strip()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--top-p", "0"], "top_p must lie in (0, 1]; got 0.0: 1 keeps every token"),
        (["--top-p", "1.5"], "top_p must lie in (0, 1]; got 1.5"),
        (["--top-k", "0"], "top_k must be at least 1; got 0"),
        (["--temperature", "-1"], "the temperature must be 0 or more, and finite"),
    ],
)
def test_bad_sampling_options(call, run, options, message):
    code, out, err = call("generate", run, "the", *options)
    assert code == 2
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1
    # Nothing is printed before the mistake is found.
    assert out == ""


def test_prompt_longer_than_the_context(call, run):
    code, _, err = call("generate", run, "the cat " * 40)
    assert code == 2
    assert "the model reads at most 32 tokens; the prompt has" in err
    assert "shorten it" in err


@pytest.mark.parametrize(
    "missing", ["config.json", "model.safetensors", "tokenizer.json"]
)
def test_a_run_with_a_missing_file(call, run, tmp_path, missing):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    (broken / missing).unlink()
    code, out, err = call("generate", broken, "the")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert missing in err
    assert err.count("\n") == 1


def test_damaged_weights(call, run, tmp_path):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    weights = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    code, _, err = call("generate", broken, "the")
    assert code == 2
    assert "damaged" in err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n\n\n\n \n", "is empty"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "is not UTF-8: byte 0 is 0x89"),
        (b"abc\x00def", "is not text: byte 3 is zero"),
        (b"one tale only", "one document cannot be split"),
    ],
)
def test_bad_corpus_leaves_nothing_behind(call, tmp_path, content, message):
    text, out = tmp_path / "text.txt", tmp_path / "run"
    text.write_bytes(content)
    code, _, err = call("demo", "--text", text, "--out", out)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not out.exists()


def test_missing_corpus(call, tmp_path):
    code, _, err = call(
        "demo", "--text", tmp_path / "none.txt", "--out", tmp_path / "r"
    )
    assert code == 2
    assert "none.txt: No such file" in err


def test_unknown_option_is_named(call, run):
    code, _, err = call("generate", run, "--temprature", "1")
    assert code == 2
    assert "--temprature" in err


def test_debug_shows_the_traceback(call, run, monkeypatch):
    monkeypatch.delenv("MINILLM_DEBUG", raising=False)
    mistake = ["generate", run, "--temperature", "-1"]
    code, _, err = call(*mistake)
    assert (code, err.count("\n")) == (2, 1)
    last = err
    for value, shown in (("1", True), ("0", False), ("", False)):
        monkeypatch.setenv("MINILLM_DEBUG", value)
        code, _, err = call(*mistake)
        assert code == 2
        assert err.endswith(last)
        assert ("Traceback" in err and "generate.py" in err) == shown
    monkeypatch.setenv("MINILLM_DEBUG", "0")
    code, _, err = call("--debug", *mistake)
    assert code == 2
    assert err.startswith("Traceback")
    assert err.endswith(last)


def test_one_default_for_the_size_of_a_vocabulary():
    import inspect

    from minillm.cli import data, tokenizer
    from minillm.config import VOCAB_SIZE
    from minillm.corpus import prepare
    from minillm.runs.demo import SHAPE

    for function in (
        data.prepare,
        tokenizer.train,
        prepare.prepare,
        prepare.embedded_corpus,
    ):
        assert (
            inspect.signature(function).parameters["vocab_size"].default is VOCAB_SIZE
        )
    assert SHAPE.vocab_size == VOCAB_SIZE


@pytest.mark.parametrize("command", ["train", "demo"])
def test_the_seed_says_what_it_fixes(call, command):
    _, out, _ = call(command, "--help")
    words = " ".join(re.sub(r"[^\w\s]", " ", out).split())
    assert "initial weights" in words
    assert "batches" in words


def test_the_page_of_commands_is_the_generated_one(tmp_path):
    """`make pages` writes it; another typer lays the same commands out otherwise."""
    from importlib.metadata import version
    from pathlib import Path

    page = tmp_path / "commands.md"
    options = ("--name", "minillm", "--title", "The commands", "--output", page)
    subprocess.run(
        [sys.executable, "-m", "typer", "minillm.cli.app", "utils", "docs", *options],
        check=True,
        capture_output=True,
    )
    root = Path(__file__).parents[2]
    written = page.read_text(encoding="utf-8")
    committed = (root / "docs" / "commands.md").read_text(encoding="utf-8")
    facts = re.compile(r"^#.*|^\* `-[\w-]+", re.MULTILINE)
    assert facts.findall(written) == facts.findall(committed)
    tested = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if f"typer=={version('typer')}" in tested:
        assert written == committed
