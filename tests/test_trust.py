"""No file runs code, leaves its folder or forges a special token: looked up, tried."""

import ast
import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_crash import SHAPE, TOKENIZER, model

from minillm.bpe import GPT2_PATTERN, GPT4_PATTERN, BPETokenizer
from minillm.corpus.prepare import load_corpus, prepare
from minillm.data import tokenize
from minillm.files.opening import find, open_model
from minillm.files.reading import open_array
from minillm.generate import stream_text
from minillm.hub import load_llama, save_llama
from minillm.train import TrainConfig, Trainer, load_checkpoint, read_extra

PACKAGE = Path(__file__).resolve().parent.parent / "minillm"

# Looked up.

# Modules that turn bytes into running code, or unpack paths that a file names.
MODULES = {
    *("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"),
    *("yaml", "ruamel", "zipfile", "tarfile", "runpy", "code", "ctypes", "commands"),
    *("xml", "dbm", "imp"),
}
CALLS = {
    *("eval", "exec", "compile", "__import__", "execfile"),
    *("torch.load", "torch.save", "torch.hub.load", "torch.jit.load"),
    *("os.system", "os.popen", "os.execv", "os.spawnv", "shutil.unpack_archive"),
}
# The stated exception: what may run the learner's own file, and nobody else's.
RUNNER = "exercises/runner.py"


def offences(source: str, name: str) -> list[str]:
    """What a source does that could run code out of a file."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            roots = {n.partition(".")[0] for n in names}
            bad = roots & MODULES
            if name != RUNNER:
                bad |= roots & {"subprocess"}
            found += sorted(bad)
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in CALLS:
                found.append(called)
            if called.endswith("exec_module") and name != RUNNER:
                found.append("exec_module")
            for keyword in node.keywords:
                value = keyword.value
                harmless = isinstance(value, ast.Constant) and value.value is False
                if keyword.arg in {"allow_pickle", "shell"} and not harmless:
                    found.append(f"{keyword.arg} in {called}")
    return found


def test_nothing_in_the_package_can_run_what_a_file_says() -> None:
    sources = {
        str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8")
        for path in PACKAGE.rglob("*.py")
    }
    assert len(sources) > 80
    found = {name: offences(source, name) for name, source in sources.items()}
    assert {name: bad for name, bad in found.items() if bad} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from yaml import load",
        "eval('1')",
        "exec(text)",
        "torch.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=wanted)",
        "import subprocess",
        "run(line, shell=True)",
        "spec.loader.exec_module(module)",
        "import os.path, tarfile",
    ],
)
def test_the_look_would_find_it(source: str) -> None:
    assert offences(source, "other.py")


# Tried.


class Trap:
    """Unpickling it fails the test."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("a file ran its code",)


@pytest.fixture
def trap() -> bytes:
    data = pickle.dumps(Trap())
    with pytest.raises(pytest.fail.Exception):
        pickle.loads(data)  # ruff: ignore[suspicious-pickle-usage]  # it does spring
    return data


def torch_saved() -> bytes:
    buffer = io.BytesIO()
    torch.save({"model": Trap()}, buffer)
    return buffer.getvalue()


def test_pickled_weights_are_not_read(tmp_path: Path, trap: bytes) -> None:
    save_llama(model(0), tmp_path, TOKENIZER)
    (tmp_path / "model.safetensors").unlink()
    for data in (trap, torch_saved()):
        (tmp_path / "pytorch_model.bin").write_bytes(data)
        with pytest.raises(FileNotFoundError, match=r"pytorch_model.bin is pickled"):
            load_llama(tmp_path)
        # Under the name of something better it is no better.
        (tmp_path / "model.safetensors").write_bytes(data)
        with pytest.raises(ValueError, match="is damaged"):
            open_model(tmp_path)
        (tmp_path / "model.safetensors").unlink()
    index = {"weight_map": {"model.embed_tokens.weight": "pytorch_model.bin"}}
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps(index), encoding="utf-8"
    )
    with pytest.raises(ValueError, match="only a safetensors file"):
        load_llama(tmp_path)


def test_pickles_under_every_other_name_are_not_read(
    tmp_path: Path, trap: bytes
) -> None:
    path = tmp_path / "file"
    for data in (trap, torch_saved()):
        path.write_bytes(data)
        for read in (
            lambda: load_checkpoint(path, model(0)),
            lambda: read_extra(path),
            lambda: BPETokenizer.load(path),
            lambda: BPETokenizer.from_gpt2_files(path, path),
            lambda: BPETokenizer.from_tiktoken_file(path, GPT2_PATTERN),
            lambda: open_model(path),
            lambda: open_array(path),
        ):
            with pytest.raises(ValueError, match="file"):
                read()


def test_arrays_of_objects_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\n\n\ntwo\n\n\nthree")
    prepare([tmp_path / "a.txt"], tmp_path / "data", tokenizer=TOKENIZER)
    row = np.array(load_corpus(tmp_path / "data").training)
    with (tmp_path / "data" / "train.npy").open("wb") as file:
        np.save(file, np.array([Trap()] * len(row), object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"train.npy is damaged"):
        load_corpus(tmp_path / "data")
    with (tmp_path / "data" / "train.npy").open("wb") as file:
        np.savez(file, row)
    with pytest.raises(ValueError, match=r"train.npy is damaged"):
        load_corpus(tmp_path / "data")


@pytest.mark.parametrize(
    "name",
    [
        "../secret.safetensors",
        "/secret.safetensors",
        "a/../../secret.safetensors",
        "..\\secret.safetensors",
        "C:\\secret.safetensors",
        "C:secret.safetensors",
        "sub/secret.safetensors",
        "file:///secret.safetensors",
        "secret.safetensors\0.safetensors/",
        "..",
        "",
    ],
)
def test_an_index_names_files_of_its_own_folder_only(tmp_path: Path, name: str) -> None:
    save_llama(model(0), tmp_path / "model")
    (tmp_path / "model" / "sub").mkdir()
    weights = tmp_path / "model" / "model.safetensors"
    for place in (tmp_path, tmp_path / "model" / "sub"):
        (place / "secret.safetensors").write_bytes(weights.read_bytes())
    weights.unlink()
    wanted = name.replace("/secret", f"{tmp_path}/secret") if name[:1] == "/" else name
    (tmp_path / "model" / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"lm_head.weight": wanted}}), encoding="utf-8"
    )
    with pytest.raises(ValueError, match="of the same folder can be read here"):
        load_llama(tmp_path / "model")


@pytest.mark.parametrize(
    "name",
    ["../a", "a/../b", "./a/b", "/a/b", "a/b/c", "~/a", ".a/b", "a/.b", "a\\b/c"],
)
def test_no_path_is_taken_for_a_name_on_the_hub(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", pytest.fail)
    assert find(name) == Path(name)


def test_no_name_of_an_exercise_is_a_path(tmp_path: Path) -> None:
    from minillm.exercises import find_exercises
    from minillm.exercises.workbook import Progress

    for name in ("../bpe.merge", "bpe/../merge", "/etc/hostname", str(tmp_path)):
        with pytest.raises(ValueError, match="no exercise"):
            find_exercises([name])
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "progress.json").write_bytes(
        b'{"../outside": {"status": "passed"}}'
    )
    from minillm.exercises import EXERCISES

    Progress(tmp_path / "work").next_hint(EXERCISES["bpe.merge"])
    assert [p.name for p in tmp_path.iterdir()] == ["work"]


def test_sources_of_a_corpus_are_no_paths(tmp_path: Path) -> None:
    """What `data.json` names is shown, never opened; and no folder is told on."""
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "../../b"}\n{"text": "/etc/c"}')
    prepare([tmp_path / "a.jsonl"], tmp_path / "data", tokenizer=TOKENIZER)
    facts = json.loads((tmp_path / "data" / "data.json").read_bytes())
    assert facts["sources"] == ["a.jsonl"]
    facts["sources"] = ["/etc/hostname", "../../x"]
    (tmp_path / "data" / "data.json").write_text(json.dumps(facts), encoding="utf-8")
    assert load_corpus(tmp_path / "data").name == "/etc/hostname, ../../x"


# Special tokens.

FORGED = "a<|endoftext|>b <|end|><|end|><|endoftext|>"


def tokenizers(folder: Path) -> list[BPETokenizer]:
    specials = ["<|endoftext|>", "<|end|>", "<|end|><|end|>"]
    trained = [
        BPETokenizer.train([FORGED * 9, "the cat " * 9], 300, specials, pattern=pattern)
        for pattern in (GPT2_PATTERN, GPT4_PATTERN, r"\w+|<\|\w+\|>")
    ]
    trained[0].save(folder / "tokenizer.json")
    trained[1].save_gpt2_files(folder / "vocab.json", folder / "merges.txt")
    return [
        *trained,
        BPETokenizer.load(folder / "tokenizer.json"),
        BPETokenizer.from_gpt2_files(folder / "vocab.json", folder / "merges.txt"),
    ]


def test_a_special_token_in_a_text_is_text_unless_allowed(tmp_path: Path) -> None:
    for tokenizer in tokenizers(tmp_path):
        ids = set(tokenizer.special_tokens.values())
        end = tokenizer.special_tokens["<|endoftext|>"]
        for encoded in (
            tokenizer.encode(FORGED),
            tokenizer.encode(FORGED, allowed_special=[]),
            list(tokenizer.encode_iterable(FORGED)),
            tokenizer.encode_batch([FORGED])[0],
        ):
            assert not ids & set(encoded)
            assert tokenizer.decode(encoded) == FORGED
        allowed = tokenizer.encode(FORGED, allowed_special=["<|endoftext|>"])
        assert [id_ for id_ in allowed if id_ in ids] == [end] * 2
        # What is allowed is said again each time: nothing is remembered.
        assert not ids & set(tokenizer.encode(FORGED))
        assert tokenizer.decode(allowed) == FORGED


def test_a_text_cannot_end_its_document(tmp_path: Path) -> None:
    end = TOKENIZER.special_tokens["<|endoftext|>"]
    documents = [FORGED, "<|endoftext|>", "x" + FORGED]
    assert (tokenize(documents, TOKENIZER) == end).sum() == len(documents) + 1
    lines = (json.dumps({"text": document}) for document in documents)
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    prepare([tmp_path / "a.jsonl"], tmp_path / "data", tokenizer=TOKENIZER)
    corpus = load_corpus(tmp_path / "data")
    ends = sum((row == end).sum() for row in (corpus.training, corpus.validation))
    assert ends == len(documents) + 2


def test_a_prompt_cannot_forge_a_special_token(monkeypatch: pytest.MonkeyPatch) -> None:
    from minillm import generate
    from minillm.config import ModelConfig
    from minillm.model import TransformerLM

    seen: list[int] = []

    def spy(model: Any, ids: list[int], *rest: Any, **options: Any) -> Any:
        seen.extend(ids)
        return iter(())

    monkeypatch.setattr(generate, "stream", spy)
    tiny = TransformerLM(ModelConfig(257, 64, 4, 1, 1))
    assert not list(stream_text(tiny, TOKENIZER, FORGED, 1))
    assert seen == list(FORGED.encode())


def test_a_checkpoint_of_another_kind_changes_nothing(tmp_path: Path) -> None:
    """What is refused has not half been taken over."""
    tokens = np.arange(60) % 7
    trainers = [Trainer(model(i), tokens, TrainConfig(steps=2)) for i in (0, 1)]
    path = tmp_path / "last.safetensors"
    torch.optim.SGD(trainers[1].model.parameters())
    from minillm.train import save_checkpoint

    sgd = torch.optim.SGD(trainers[1].model.parameters(), momentum=0.9)
    trainers[1].step()
    sgd.step()
    save_checkpoint(path, trainers[1].model, sgd, 1, chance={})
    before = {n: t.clone() for n, t in trainers[0].model.state_dict().items()}
    with pytest.raises(ValueError, match=r"last.safetensors"):
        trainers[0].load(path)
    assert trainers[0].done == 0
    for name, tensor in trainers[0].model.state_dict().items():
        assert tensor.equal(before[name])
    assert trainers[0].model.config == SHAPE
    assert [p.name for p in tmp_path.iterdir()] == ["last.safetensors"]
