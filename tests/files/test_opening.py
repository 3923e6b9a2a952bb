"""Folders, files and names, opened and left to write, as by those who made them."""

import functools
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from test_gguf_files import a_model, a_tokenizer, write
from test_hub import THEIR_OPTIONS, loud, rewrite

import minillm
from minillm.bpe import BPETokenizer
from minillm.cli.app import app
from minillm.config import ModelConfig, RopeScaling
from minillm.files.opening import (
    find,
    open_model,
    read_begin_ids,
    read_chat_template,
    read_stop_ids,
)
from minillm.generate import generate
from minillm.hub import save_llama
from minillm.inference.templates import ChatTemplate
from minillm.tokenizer.patterns import DIGITS_PATTERN, LLAMA3_PATTERN

TEXT = [
    "A rose is a rose is a rose, said the little mermaid in 1837; and it's her 12th.",
    "Once upon a time there were five and twenty tin soldiers, who were all brothers.",
]
PROMPTS = ["A rose", "Once upon a time in 1837, it's  12", "été\n\n the mermaid", "是"]


@pytest.fixture(scope="module")
def transformers():
    module = pytest.importorskip("transformers", reason="the peer of this chapter")
    module.utils.logging.disable_progress_bar()
    return module


def their_tokenizer(style):
    """A tokenizer made with `tokenizers` as that of Llama 3, or of SmolLM2, is made."""
    tokenizers = pytest.importorskip("tokenizers", reason="the peer of this chapter")
    steps = tokenizers.pre_tokenizers
    if style == "llama3":
        specials = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
        split = steps.Split(tokenizers.Regex(LLAMA3_PATTERN), "isolated")
        first = [split, steps.ByteLevel(add_prefix_space=False, use_regex=False)]
    else:
        specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        digits = steps.Digits(individual_digits=True)
        first = [digits, steps.ByteLevel(add_prefix_space=False, use_regex=True)]
    model = tokenizers.models.BPE(ignore_merges=style == "llama3")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = steps.Sequence(first)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=specials,
        initial_alphabet=steps.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    if style == "llama3":
        begin = specials[0]
        processors = tokenizers.processors
        tokenizer.post_processor = processors.Sequence([
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{begin} $A",
                pair=f"{begin} $A {begin}:1 $B:1",
                special_tokens=[(begin, tokenizer.token_to_id(begin))],
            ),
        ])
    return tokenizer, specials


def their_folder(transformers, folder, style):
    """A folder as its makers publish it, and the model in it."""
    tokenizer, specials = their_tokenizer(style)
    ids = [tokenizer.token_to_id(token) for token in specials]
    scaling = RopeScaling(8.0, 1.0, 4.0, 40) if style == "llama3" else None
    config = ModelConfig(
        tokenizer.get_vocab_size(),
        160,
        48,
        2,
        6,
        3,
        64,
        rope_theta=500.0,
        tie_embeddings=style == "smollm2",
        rope_scaling=scaling,
    )
    save_llama(loud(config), folder)
    begin, *ends = (ids[0], ids[1], ids[2]) if style == "llama3" else (ids[1], ids[2])
    theirs = transformers.LlamaForCausalLM.from_pretrained(folder, **THEIR_OPTIONS)
    theirs.generation_config = transformers.GenerationConfig(
        bos_token_id=begin, eos_token_id=ends if len(ends) > 1 else ends[0]
    )
    theirs.config.bos_token_id, theirs.config.eos_token_id = begin, ends[-1]
    theirs.save_pretrained(folder)
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=specials[0], eos_token=specials[-1]
    )
    wrapped.save_pretrained(folder)
    return theirs.eval(), tuple(ends)


@pytest.mark.parametrize("style", ["llama3", "smollm2"])
def test_greedy_text_is_theirs_token_by_token(transformers, tmp_path, style, capsys):
    theirs, ends = their_folder(transformers, tmp_path, style)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path, **THEIR_OPTIONS)
    ours = open_model(tmp_path)
    assert tuple(ours.tokenizer.stop_ids) == ends
    assert len(ours.tokenizer.begin_ids) == (style == "llama3")
    stopped = 0
    for prompt in PROMPTS:
        inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        ids = [*ours.tokenizer.begin_ids, *ours.tokenizer.encode(prompt)]
        assert inputs["input_ids"].tolist() == [ids]
        expected = theirs.generate(**inputs, do_sample=False, max_new_tokens=60)
        expected = expected[0, len(ids) :].tolist()
        found = generate(
            ours.model, ids, 60, temperature=0, stop_ids=ours.tokenizer.stop_ids
        )
        if expected[-1] in ends:
            stopped += 1
            expected.pop()
        assert found == expected
        # And so it is on the command line, where the text is put together again.
        options = ["--temperature", "0", "--max-new-tokens", "60"]
        app(["generate", str(tmp_path), prompt, *options], standalone_mode=False)
        text = capsys.readouterr().out
        assert text == prompt + tokenizer.decode(expected) + "\n"
    assert 1 <= stopped < len(PROMPTS)


# What stands around a text


@pytest.fixture
def folder(tmp_path):
    """A folder of ours, with three special tokens."""
    specials = ["<|endoftext|>", "<s>", "</s>"]
    tokenizer = BPETokenizer.train(TEXT, 280, specials, pattern=DIGITS_PATTERN)
    model = loud(ModelConfig(tokenizer.vocab_size, 40, 16, 1, 2))
    save_llama(model, tmp_path, tokenizer)
    return tmp_path


def put(folder, name, **entries):
    (folder / name).write_text(json.dumps(entries), encoding="utf-8")


def around(folder):
    tokenizer = open_model(folder).tokenizer
    return tuple(tokenizer.begin_ids), tuple(tokenizer.stop_ids)


def test_the_end_is_where_the_first_file_says(folder):
    put(folder, "tokenizer_config.json", eos_token="</s>")
    rewrite(folder, eos_token_id=None)
    assert around(folder) == ((), (279,))
    put(folder, "tokenizer_config.json", eos_token={"content": "<s>"})
    assert around(folder) == ((), (278,))
    put(folder, "generation_config.json", temperature=0.6)
    assert around(folder) == ((), (278,))
    rewrite(folder, eos_token_id=277)
    assert around(folder) == ((), (277,))
    put(folder, "generation_config.json", eos_token_id=[279, 277])
    assert around(folder) == ((), (277, 279))
    put(folder, "generation_config.json", eos_token_id=0)
    assert around(folder) == ((), (0,))
    # An empty list says nothing: a text without an end is not meant.
    put(folder, "generation_config.json", eos_token_id=[])
    assert around(folder) == ((), (277,))
    rewrite(folder, eos_token_id=[])
    assert around(folder) == ((), (278,))


def test_without_a_file_that_says_it_the_usual_end_counts(folder):
    rewrite(folder, eos_token_id=None)
    (folder / "tokenizer_config.json").unlink()
    assert around(folder) == ((), (277,))
    tokenizer = BPETokenizer.train(TEXT, 280)
    assert read_stop_ids(folder, tokenizer) == []
    tokenizer.stop_ids = [9, 8]
    assert read_stop_ids(folder, tokenizer) == [9, 8]


def test_the_beginning(folder):
    path = folder / "tokenizer.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    put(folder, "tokenizer_config.json", bos_token="<s>")
    assert around(folder)[0] == ()
    put(folder, "tokenizer_config.json", bos_token="<s>", add_bos_token=True)
    assert around(folder)[0] == (278,)
    text = {"Sequence": {"id": "A", "type_id": 0}}

    def special(name):
        return {"SpecialToken": {"id": name, "type_id": 0}}

    def template(*single):
        document["post_processor"] = {
            "type": "TemplateProcessing",
            "single": single,
            "pair": [],
            "special_tokens": {
                name: {"id": name, "ids": [id_], "tokens": [name]}
                for name, id_ in (("<s>", 278), ("</s>", 279))
            },
        }
        put(folder, "tokenizer.json", **document)
        return around(folder)[0]

    assert template(special("</s>"), special("<s>"), text, special("<s>")) == (279, 278)
    assert template(text, special("<s>")) == ()
    with pytest.raises(ValueError, match=r"names the token '<b>', which the tokenizer"):
        template(special("<b>"), text)


@pytest.mark.parametrize("value", ["</s>", [1, "2"], 1.5, True])
def test_an_end_that_is_no_id_is_refused(folder, value):
    put(folder, "generation_config.json", eos_token_id=value)
    with pytest.raises(ValueError, match=r"generation_config.json: eos_token_id must"):
        open_model(folder)


def test_a_damaged_neighbour_is_refused(folder):
    (folder / "generation_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"generation_config.json is not JSON"):
        open_model(folder)


# A file


def test_a_file_is_opened_like_a_folder(tmp_path, capsys):
    tokenizer = a_tokenizer()
    model = a_model(tokenizer)
    begin, end = tokenizer.special_tokens.values()
    path = write(
        tmp_path / "a.gguf", model, tokenizer, tokenizer__ggml__add_bos_token=True
    )
    found = open_model(path)
    assert found.tokenizer.begin_ids == [begin]
    assert found.tokenizer.stop_ids == [begin, end]
    ids = [begin, *tokenizer.encode("A rose")]
    options = {"temperature": 0, "stop_ids": found.tokenizer.stop_ids}
    assert generate(found.model, ids, 20, **options) == generate(
        model, ids, 20, **options
    )
    again, tokenizer = minillm.load(path)
    assert tokenizer.begin_ids == [begin]
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)
    words = ["generate", str(path), "A rose", "--temperature", "0"]
    app([*words, "--max-new-tokens", "20"], standalone_mode=False)
    expected = tokenizer.decode(generate(model, ids, 20, **options))
    assert capsys.readouterr().out == f"A rose{expected}\n"


# A name


@pytest.mark.parametrize(
    "source", ["runs/demo", "models/x", "nowhere", "a/b/c", "../b", "a/../b", "/a/b"]
)
def test_what_is_no_name_on_the_hub(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert str(find(source)) == source


def test_what_exists_is_no_name_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert str(find("owner/name")) == str(Path("owner") / "name")
    assert str(find("owner/another")) == str(Path("owner") / "another")


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        ImportError, match=r"no folder owner/name; .*pip install huggingface_hub"
    ):
        find("owner/name")


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as it takes to fetch the files of one folder."""

    def __init__(self, *args, folder, asked):
        self.folder, self.asked = folder, asked
        super().__init__(*args)

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.asked.append(self.path)
        self.answer()

    def answer(self):
        path, commit = self.path.split("?")[0], "0" * 40
        name = path.rsplit("/", 1)[-1]
        if "/owner/name/" not in path + "/":
            status, body = 404, b'{"error": "Repository not found"}'
        elif path.startswith("/api/"):
            files = sorted(file.name for file in self.folder.iterdir())
            entries = [
                {"type": "file", "path": f, "size": 1, "oid": "0" * 40} for f in files
            ]
            described = {"id": "owner/name", "sha": commit, "private": False}
            described["siblings"] = [{"rfilename": file} for file in files]
            listing = "/tree/" in path
            status, body = 200, json.dumps(entries if listing else described).encode()
        else:
            status, body = 200, (self.folder / name).read_bytes()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit)
        if status == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.mark.check
def test_a_name_is_fetched_from_the_hub(folder, tmp_path_factory):
    pytest.importorskip("huggingface_hub", reason="the extra that this test is about")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02")
    asked = []
    handler = functools.partial(Hub, folder=folder, asked=asked)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    environment = os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(elsewhere / "home"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_OFFLINE": "0",
        "PYTHONPATH": os.pathsep.join(sys.path),
        "NO_PROXY": "127.0.0.1",
    }

    def call(name):
        options = ["--temperature", "0", "--max-new-tokens", "12"]
        return subprocess.run(
            [sys.executable, "-m", "minillm", "generate", name, "A rose", *options],
            cwd=elsewhere,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )

    done = call("owner/name")
    assert done.returncode == 0, done.stderr
    ours = open_model(folder)
    ids = generate(
        ours.model,
        ours.tokenizer.encode("A rose"),
        12,
        temperature=0,
        stop_ids=ours.tokenizer.stop_ids,
    )
    assert done.stdout == f"A rose{ours.tokenizer.decode(ids)}\n"
    assert any(path.endswith("model.safetensors") for path in asked)
    assert not any(path.endswith(".bin") for path in asked)
    failed = call("owner/other")
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: there is no folder owner/other, and it")
    server.shutdown()
    server.server_close()


def test_beginning_and_end_are_read_without_a_model(folder):
    tokenizer = BPETokenizer.load(folder / "tokenizer.json")
    assert read_begin_ids(folder, tokenizer) == []
    assert read_stop_ids(folder, tokenizer) == [277]


# How a conversation is written


def test_the_template_is_where_the_first_file_says(folder):
    assert open_model(folder).chat_template is None
    named = [
        {"name": "tool_use", "template": "b"},
        {"name": "default", "template": "c"},
    ]
    put(folder, "tokenizer_config.json", chat_template=named)
    assert read_chat_template(folder).source == "c"
    put(
        folder,
        "tokenizer_config.json",
        chat_template="d",
        bos_token="<s>",
        eos_token={"content": "</s>"},
        pad_token=None,
        add_bos_token=True,
    )
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    assert read_chat_template(folder) == ChatTemplate("d", tokens)
    (folder / "chat_template.jinja").write_text("é", encoding="utf-8")
    assert read_chat_template(folder) == ChatTemplate("é", tokens)
    assert open_model(folder).chat_template == ChatTemplate("é", tokens)


@pytest.mark.parametrize("source", [3, [], [{"name": "a", "template": "b"}], ["x"]])
def test_a_template_that_is_no_text_is_refused(folder, source):
    put(folder, "tokenizer_config.json", chat_template=source)
    with pytest.raises(
        ValueError, match=r"tokenizer_config.json: the chat_template mu"
    ):
        open_model(folder)


def test_a_template_that_is_not_utf_8_is_refused(folder):
    (folder / "chat_template.jinja").write_bytes(b"a\xff")
    with pytest.raises(ValueError, match=r"chat_template.jinja is not UTF-8 at byte 1"):
        open_model(folder)
