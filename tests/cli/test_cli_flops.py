"""The commands of accounting: what they print, and how they fail."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from minillm.accounting import measure as flops_measure
from minillm.accounting.disclosure import GPT4_REPORT, disclose, disclosure_table
from minillm.config import ModelConfig
from minillm.flops import (
    CHIPS,
    forward_flops,
    inference_memory,
    param_count,
    preset,
    training_flops,
    training_memory,
)
from minillm.hub import read_config, save_llama
from minillm.model import TransformerLM

Call = Callable[..., tuple[int, str, str]]

CONFIG = ModelConfig(50, 16, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_llama(TransformerLM(CONFIG), folder)
    return folder


# minillm flops


def test_the_table_of_a_preset(call: Call) -> None:
    code, out, err = call("flops", "gpt2")
    assert (code, err) == (0, "")
    lines = {line[:40].split("  ")[0].strip(): line for line in out.splitlines()}
    shape = preset("gpt2")
    # The figures of the chapter: 291,648,307,200 FLOPs of 124,439,808 parameters.
    assert lines["FLOPs, forward pass"].endswith(" 292G")
    assert lines["parameters"].endswith(f" {param_count(shape).total:,}")
    assert lines["sequences x tokens"].endswith("1 x 1,024")
    assert lines["logits"].split()[-3:] == ["79G", "27.1%", "38.6M"]
    # The first of the indented lines holds the name of the model.
    shares = [line.split()[-1] for line in out.splitlines() if line.startswith("  ")]
    assert shares[1:5] == ["19.9%", "13.3%", "39.8%", "27.1%"]
    assert all(len(line) <= 80 for line in out.splitlines())


def test_names_are_not_particular_about_capitals(call: Call) -> None:
    assert (
        call("flops", "GPT2-XL")[1].replace("GPT2-XL", "gpt2-xl")
        == (call("flops", "gpt2-xl")[1])
    )


@pytest.mark.parametrize("file", [False, True])
def test_a_folder_and_its_description(call: Call, folder: Path, file: bool) -> None:
    path = folder / "config.json" if file else folder
    code, out, _ = call("flops", path, "--json")
    assert code == 0
    told = json.loads(out)
    assert told["forward"] == forward_flops(CONFIG, 1, 16).as_dict()
    assert told["parameters"]["total"] == param_count(CONFIG).total
    assert read_config(path) == CONFIG


def test_json_is_the_functions(call: Call) -> None:
    options = ("--context", 300, "--batch", 4, "--recompute", "--json")
    told = json.loads(call("flops", "llama3-8b", *options)[1])
    work = preset("llama3-8b"), 4, 300
    assert told == {
        "model": "llama3-8b",
        "batch": 4,
        "context": 300,
        "recompute": True,
        "parameters": param_count(work[0]).as_dict(),
        "forward": forward_flops(*work).as_dict(),
        "shares": forward_flops(*work).shares(),
        "training": training_flops(*work, recompute="full"),
        "training_memory": training_memory(*work, recompute=True).as_dict(),
        "inference_memory": inference_memory(*work).as_dict(),
    }


def test_compare_sets_models_side_by_side(call: Call, folder: Path) -> None:
    code, out, _ = call("flops", "compare", "gpt2", "gpt3", folder, "--context", 2048)
    assert code == 0
    ffn = next(line for line in out.splitlines() if line.startswith("  ffn"))
    shapes = preset("gpt2"), preset("gpt3"), CONFIG
    shares = [forward_flops(shape, 1, 2048).shares()["ffn"] for shape in shapes]
    assert ffn.split()[1:] == [f"{share:.1%}" for share in shares]
    assert call("flops", "gpt2", "gpt3", folder, "--context", 2048)[1] == out
    told = json.loads(call("flops", "compare", "gpt2", "gpt3", "--json")[1])
    assert [report["model"] for report in told] == ["gpt2", "gpt3"]


@pytest.mark.parametrize("recompute", [False, True])
def test_measure_asks_counter_and_clock(
    call: Call, folder: Path, recompute: bool
) -> None:
    options = ("--measure", "--json", *(["--recompute"] if recompute else []))
    code, out, _ = call("flops", folder, "--batch", 2, *options)
    assert code == 0
    told = json.loads(out)
    measured = told["measured"]
    assert measured["equal"] is True
    assert measured["forward"] == told["forward"]["total"]
    assert measured["training"] == told["training"]
    assert measured["peak_flops"] > 0
    # What is recomputed does not count as used.
    useful = 3 * told["forward"]["total"]
    used = useful / (measured["seconds"] * measured["peak_flops"])
    assert measured["mfu"] == pytest.approx(used)


def test_measure_prints_what_it_finds(call: Call, folder: Path) -> None:
    code, out, _ = call("flops", folder, "--measure")
    assert code == 0
    forward = forward_flops(CONFIG, 1, 16).total
    counted = f"PyTorch counts  {forward:,} FLOPs forward, {3 * forward:,} in a step"
    assert counted in out
    assert "the same as above" in out
    assert "NOT" not in out
    assert "FLOP/s in float32" in out
    assert "MFU" in out


def test_measure_fails_if_the_counter_disagrees(
    call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flops_measure, "torch_flops", lambda *work: (1, 3))
    code, out, _ = call("flops", folder, "--measure")
    assert code == 1
    assert "NOT the same" in out


def test_what_does_not_fit_is_counted_and_not_timed(
    call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flops_measure, "machine_memory", lambda: 1e3)

    def clock(*work: object) -> float:
        raise AssertionError("the clock was asked")

    monkeypatch.setattr(flops_measure, "step_seconds", clock)
    code, out, _ = call("flops", folder, "--measure")
    assert code == 0
    assert "the same as above" in out
    assert "not asked: a step keeps" in out
    assert "machine has 1k" in out


def bad_config(folder: Path, **changes: Any) -> Path:
    path = folder / "config.json"
    with torch.device("meta"):
        model = TransformerLM(CONFIG)
    text = description(model) | changes
    path.write_text(json.dumps(text), encoding="utf-8")
    return path


def description(model: TransformerLM) -> dict[str, Any]:
    c = model.config
    return {
        "model_type": "llama",
        "vocab_size": c.vocab_size,
        "max_position_embeddings": c.context_length,
        "hidden_size": c.d_model,
        "num_hidden_layers": c.n_layers,
        "num_attention_heads": c.n_heads,
        "num_key_value_heads": c.n_kv_heads,
        "intermediate_size": c.d_ff,
        "rms_norm_eps": c.norm_eps,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gpt2-huge"], "no preset 'gpt2-huge'; the nearest: gpt2-large, gpt2-xl"),
        (["compare", "gpt2", "lama2-7b"], "no preset 'lama2-7b'; the nearest: llama2"),
        (["compare"], "nothing to compare: name a model, or several"),
        (["demo", "--context", "0"], "--context must be a positive int; got 0"),
        (["demo", "--context", "-5"], "--context must be a positive int; got -5"),
        (["demo", "--batch", "0"], "--batch must be a positive int; got 0"),
        (["demo", "--batch", "9" * 400], "--batch must be at most 1e+15; got a number"),
        (["runs/nowhere"], "nowhere: No such file or directory"),
        (["nowhere.json"], "nowhere.json: No such file or directory"),
    ],
)
def test_bad_input(call: Call, arguments: list[str], message: str) -> None:
    code, out, err = call("flops", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": 5}, "d_model=16 is not a multiple of n_heads=5"),
        ({"num_key_value_heads": 3}, "n_heads=4 is not a multiple of n_kv_heads=3"),
        ({"hidden_size": 0}, "d_model must be a positive int; got 0"),
        ({"num_hidden_layers": -1}, "n_layers must be a positive int; got -1"),
        ({"model_type": "gpt2"}, "model_type is 'gpt2'; only 'llama'"),
    ],
)
def test_bad_descriptions(
    call: Call, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = bad_config(tmp_path, **changes)
    code, out, err = call("flops", path)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {path}: ")
    assert message in err
    assert err.count("\n") == 1


def test_tokens_overflow_nothing(call: Call) -> None:
    code, out, _ = call("flops", "llama3-405b", "--batch", 10**15, "--context", 10**15)
    assert code == 0
    assert "100.0%" in out


# minillm cost

ASSUMED = ("--mfu", 0.4, "--price", 2)


def test_cost_of_a_model_by_name(call: Call) -> None:
    # Llama 2 7B at the utilization that Meta's 184,320 hours imply.
    run = ("--params", "llama2-7b", "--tokens", 2e12, "--chip", "a100")
    code, out, _ = call("cost", *run, "--mfu", 0.391, "--price", 2, "--count", 1024)
    assert code == 0
    assert out.splitlines() == [
        "FLOPs             8.09e+22  6 x 6.74e+09 parameters x 2e+12 tokens",
        "FLOP/s of a chip  1.22e+14  39% of 3.12e+14, NVIDIA A100 80GB SXM data sheet",
        "chip-hours         184,122",
        "days                   7.5  on 1,024 chips",
        "dollars            368,244  at 2.00 an hour",
    ]


def test_a_mixture_costs_what_its_tokens_meet(call: Call) -> None:
    # Mixtral: 46.7 billion parameters, of which a token meets 12.9 billion
    # (Jiang et al. 2024, arXiv:2401.04088, table 1 and section 5).
    run = ("--params", "mixtral-8x7b", "--tokens", 2e12, "--chip", "h100")
    lines = call("cost", *run, *ASSUMED)[1].splitlines()
    assert lines[0].endswith("1.55e+23  6 x 1.29e+10 active parameters x 2e+12 tokens")
    assert lines[2].split()[1] == "108,483"  # FLOPs / (0.4 x 989.4e12) / 3600
    assert lines[4].split()[1] == "216,965"


def test_six_nd_of_a_mixture_is_near_a_step(call: Call) -> None:
    out = call("flops", "mixtral-8x7b")[1]

    def told(label: str) -> str:
        (line,) = (x for x in out.splitlines() if x.strip().startswith(label + "  "))
        return line.split()[-1]

    assert told("6 x active parameters x tokens") == "2.53P"
    assert told("FLOPs, training step") == "4.2P"
    assert told("parameters") == "46,702,792,704"
    assert told("parameters, active") == "12,879,925,248"


def test_the_help_names_every_chip(call: Call) -> None:
    told = call("cost", "--help")[1]
    assert [name for name in CHIPS if name not in told] == []


def test_chips_convert_binary_gigabytes() -> None:
    # 32 GiB and 1200 GBps, 192 GiB and 7380 GBps, in Google's own tables.
    for name, gib, bandwidth in (("tpu-v4", 32, 1.2e12), ("tpu7x", 192, 7.38e12)):
        assert CHIPS[name].memory == pytest.approx(gib * 2**30, rel=2e-3)
        assert CHIPS[name].bandwidth == bandwidth


def test_cost_by_numbers(call: Call) -> None:
    by_flops = ("--flops", 3.14e23, "--peak", 312e12)
    told = json.loads(call("cost", *by_flops, *ASSUMED, "--json")[1])
    assert told["chip_hours"] == pytest.approx(3.14e23 / (312e12 * 0.4 * 3600))
    assert told["dollars"] == pytest.approx(2 * told["chip_hours"])
    assert told["days"] == pytest.approx(told["chip_hours"] / 24)
    assert (told["n_chips"], told["utilization"]) == (1, 0.4)
    by_size = ("--params", 174.6e9, "--tokens", 300e9, "--chip", "A100")
    again = json.loads(call("cost", *by_size, *ASSUMED, "--json")[1])
    assert again["dollars"] == pytest.approx(told["dollars"], rel=1e-3)
    assert "on 1 chip\n" in call("cost", *by_flops, *ASSUMED)[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--flops", "1e20", "--peak", "0"], "--peak must be above zero and finite"),
        (["--flops", "1e20", "--peak", "nan"], "--peak must be above zero and finite"),
        (["--flops", "0", "--chip", "h100"], "--flops must be above zero and finite"),
        (["--flops", "1e20", "--chip", "h10"], "no chip 'h10'; there are: a100, h100"),
        (["--flops", "1e20"], "say what computes: --chip a100, h100"),
        (["--flops", "1e20", "--chip", "h100", "--peak", "1"], "say what computes"),
        (["--chip", "h100"], "say what is trained: --params and --tokens, or --flops"),
        (["--params", "7e9", "--chip", "h100"], "say what is trained"),
        (["--params", "7e9", "--tokens", "0", "--chip", "h100"], "--tokens must be"),
        (["--params", "-1", "--tokens", "1", "--chip", "h100"], "--params must be"),
        (["--params", "1e999", "--tokens", "1", "--chip", "h100"], "got inf"),
        (["--params", "gpt9", "--tokens", "1", "--chip", "h100"], "nearest: gpt3"),
        (["--flops", "1", "--chip", "h100", "--count", "0"], "--count must be"),
    ],
)
def test_bad_cost(call: Call, arguments: list[str], message: str) -> None:
    code, out, err = call("cost", *arguments, *ASSUMED)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_percent_is_not_a_fraction(call: Call) -> None:
    work = ("--flops", 1e20, "--chip", "h100", "--price", 2)
    _, _, err = call("cost", *work, "--mfu", 40)
    assert "write 40 % as 0.4" in err
    code, _, err = call("cost", *work)
    assert code == 2
    assert "--mfu" in err


# minillm disclose


@pytest.fixture
def run(tmp_path: Path, folder: Path) -> Path:
    """What a run of the demo leaves, as far as it is disclosed."""
    config = (folder / "config.json").read_text(encoding="utf-8")
    (tmp_path / "config.json").write_text(config, encoding="utf-8")
    lines: list[dict[str, Any]] = [
        {"event": "config", "steps": 1400, "batch_size": 8, "max_lr": 0.003}
        | {"warmup_steps": 100, "seed": 7},
        {"event": "step", "step": 1},
        {"event": "result", "parameters": 1234, "tokens": 5678, "flops": 3e10}
        | {"seconds": 2.0, "peak_flops": 6e10, "corpus": "tales", "documents": 9}
        | {"machine": "abacus", "threads": 2, "device": "cuda"}
        | {"construction": "every second tale held out; byte-pair encoding"},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "log.jsonl").write_text(text, encoding="utf-8")
    return tmp_path


def test_disclose_reads_the_run(call: Call, run: Path) -> None:
    ours = disclose(run)
    assert list(ours) == list(GPT4_REPORT)
    assert ours["model size"] == "1,234 parameters"
    assert ours["hardware"] == "abacus, cuda, 2 threads, 60 GFLOP/s at best"
    assert ours["training compute"] == "3.00e+10 FLOPs in 2 seconds, MFU 25%"
    assert ours["data"] == "tales, 9 documents to learn from"
    assert "2 layers of width 16, 4 heads" in ours["architecture"]
    assert "1,400 steps of 8 sequences" in ours["training method"]
    assert ours["dataset construction"].startswith(
        "every second tale held out; byte-pair encoding, 50 tokens; 5,678 read"
    )
    code, out, _ = call("disclose", run)
    assert code == 0
    assert "no further details" in out
    assert "1,234 parameters" in out
    assert all(item in out for item in GPT4_REPORT if " " not in item)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.jsonl", None, "log.jsonl: No such file or directory"),
        ("config.json", None, "config.json: No such file or directory"),
        ("log.jsonl", '{"event": "con', "has a damaged file"),
        ("log.jsonl", '{"event": "config"}\n', "does not say 'result'"),
        ("log.jsonl", "[1, 2]\n", "line 1, is no event of a run"),
    ],
)
def test_a_run_that_cannot_be_disclosed(
    call: Call, run: Path, name: str, content: str | None, message: str
) -> None:
    if content is None:
        (run / name).unlink()
    else:
        (run / name).write_text(content, encoding="utf-8")
    code, out, err = call("disclose", run)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_the_committed_disclosure_is_that_of_the_demo() -> None:
    """In what no machine changes; `drawing.figures --recompute` renews it."""
    from minillm.files.reading import IMAGES
    from minillm.runs.demo import CONFIG as c
    from minillm.runs.demo import SHAPE

    table = (IMAGES / "data" / "disclosure.md").read_text(encoding="utf-8")
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.splitlines()[2:]
    ]
    assert {item: theirs for item, theirs, _ in cells} == GPT4_REPORT
    ours = {item: text for item, _, text in cells}
    assert disclosure_table(ours) + "\n" == table
    tokens = c.steps * c.batch_size * SHAPE.context_length
    flops = c.steps * training_flops(SHAPE, c.batch_size, SHAPE.context_length)
    assert ours["model size"] == f"{param_count(SHAPE).total:,} parameters"
    assert ours["training compute"].startswith(f"{flops:.2e} FLOPs in ")
    assert f"{tokens:,} read" in ours["dataset construction"]
    assert f"AdamW, {c.steps:,} steps of {c.batch_size}" in ours["training method"]
    assert f"rate {c.max_lr} after {c.warmup_steps}" in ours["training method"]
