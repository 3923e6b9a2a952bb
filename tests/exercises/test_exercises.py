"""The exercises: they grade the learner's code, and say what is wrong with it."""

import doctest
import importlib.util
import json
import math
import signal
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from minillm import bpe
from minillm.cli.app import app
from minillm.exercises import EXERCISES, check, find_exercises, pages, workbook
from minillm.exercises.exercise import CHAPTERS, chapter_text, stubs
from minillm.exercises.grader import grade
from minillm.exercises.report import Report
from minillm.exercises.runner import grade_folder

ROOT = Path(__file__).parents[2]
MISTAKES = [
    pytest.param(exercise, mistake, id=f"{exercise.name}: {mistake.name}")
    for exercise in EXERCISES.values()
    for mistake in exercise.mistakes
]
every = pytest.mark.parametrize("exercise", EXERCISES.values(), ids=lambda e: e.name)


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    """The files of stubs, as a learner gets them, imported."""
    folder = tmp_path_factory.mktemp("stubs")
    workbook.start(folder)
    modules = {}
    for path in folder.glob("*.py"):
        spec = importlib.util.spec_from_file_location(f"untouched_{path.stem}", path)
        modules[path.stem] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(modules[path.stem])
    return modules


# Every exercise


@every
def test_the_stub_fails(exercise, untouched):
    stub = getattr(untouched[exercise.chapter], exercise.function)
    assert grade(exercise, stub).status == "todo"


@every
def test_the_reference_passes(exercise):
    report = grade(exercise, exercise.reference, watch=False)
    assert report.passed, str(report)


@every
def test_the_answer_itself_is_noticed(exercise):
    report = grade(exercise, lambda *args: exercise.reference(*args), examples=1)
    assert (report.status, report.kind) == ("wrong", "answer")


def test_a_second_form_of_the_answer_is_noticed_too():
    from minillm import attention
    from minillm.training import descent, loss

    def step(w, g, m, v, step, lr, betas, eps, weight_decay):
        memory = {"step": step - 1.0, "exp_avg": m, "exp_avg_sq": v}
        w = descent.adamw(w, g, memory, lr, betas, eps, weight_decay)
        return w, memory["exp_avg"], memory["exp_avg_sq"]

    def several(x, w_q, w_k, w_v, w_o, n_heads):
        return attention.multi_head_attention_naive(x, w_q, w_k, w_v, w_o, n_heads)

    for name, candidate in {
        "train.adamw_step": step,
        "train.cross_entropy": lambda x, y: loss.cross_entropy_fast(x, y),
        "model.multi_head": several,
    }.items():
        (exercise,) = find_exercises([name])
        assert grade(exercise, candidate, watch=False).passed, name
        assert grade(exercise, candidate, examples=1).kind == "answer", name


@pytest.mark.parametrize(("exercise", "mistake"), MISTAKES)
def test_the_mistake_is_caught_and_named(exercise, mistake):
    report = grade(exercise, mistake.function, watch=False, shrink=False, examples=8)
    assert report.status == "wrong"
    assert report.mistake == mistake.name, str(report)


@every
def test_the_examples_of_the_stub_are_right(exercise, untouched):
    names = vars(untouched[exercise.chapter]) | {exercise.function: exercise.reference}
    found = doctest.DocTestParser().get_doctest(
        exercise.stub.docstring, names, exercise.name, None, 0
    )
    runner = doctest.DocTestRunner(verbose=False)
    assert runner.run(found).failed == 0


@every
def test_the_text_is_complete(exercise):
    assert exercise.chapter in CHAPTERS
    assert 5 <= exercise.minutes <= 40
    assert len(exercise.mistakes) >= 3
    names = [mistake.name for mistake in exercise.mistakes]
    assert len(set(names)) == len(names)
    assert all(mistake.sentence.endswith((".", "?")) for mistake in exercise.mistakes)
    assert exercise.why.endswith(".") and len(exercise.hints) == 3
    source = workbook.solution(exercise)
    assert "def " in source and "NotImplementedError" not in source
    assert '"""' not in source


def test_there_are_enough_of_them_and_each_stub_has_one():
    assert len(EXERCISES) >= 20
    listed = [(e.chapter, e.function) for e in EXERCISES.values()]
    written = [(c, name) for c in CHAPTERS for name in stubs(c)]
    assert listed == written
    assert {e.chapter for e in EXERCISES.values()} == set(CHAPTERS)


# The references that are written out are the course's own


def test_references_that_are_written_out_agree_with_the_chapter():
    from minillm import model
    from minillm.exercises import transformer

    x = torch.randn(2, 3, 8, dtype=torch.float64)
    norm = model.RMSNorm(8, eps=0.1).double()
    torch.nn.init.normal_(norm.weight)
    ours = transformer._rms_norm(x, norm.weight, 0.1)
    torch.testing.assert_close(ours, norm(x), rtol=1e-12, atol=0)
    ffn = model.SwiGLU(8, 24).double()
    ours = transformer._swiglu(x, ffn.w1.weight, ffn.w2.weight, ffn.w3.weight)
    torch.testing.assert_close(ours, ffn(x), rtol=1e-12, atol=1e-14)
    heads = transformer._multi_head(x, *(torch.eye(8).double() for _ in range(4)), 2)
    q = transformer._split_heads(x, 2)
    mask = transformer._causal_mask(3, 3)
    joined = model.scaled_dot_product_attention(q, q, q, mask).transpose(1, 2)
    torch.testing.assert_close(heads, joined.flatten(2), rtol=1e-12, atol=1e-14)


# What the grader says


def test_the_smallest_failing_input_is_shown():
    def merge(ids, pair, new_id):
        return [new_id if id_ == pair[0] else id_ for id_ in ids]

    report = check("bpe.merge", merge)
    assert report.call == "merge([0], (0, 0), 256)"
    assert (report.expected, report.got) == ("[0]", "[256]")
    assert report.mistake == ""
    assert report == check("bpe.merge", merge)  # the same in every run


def test_one_of_two_mistakes_is_named():
    # Characters for bytes, and no error without ids.
    report = check("bpe.compression_ratio", lambda text, ids: len(text) / len(ids))
    assert (report.kind, report.mistake) == ("value", "characters for bytes")


def test_a_second_mistake_is_named_behind_the_first():
    # The smallest input shows the row that may look nowhere, all others the scale.
    def attention(q, k, v, mask):
        scores = q @ k.transpose(-2, -1) / q.shape[-1]
        return scores.masked_fill(~mask, -1e4).softmax(-1) @ v

    report = check("model.attention", attention)
    assert report.mistake == "a large negative number for minus infinity"
    assert "On other inputs it looks like “scaled by d”." in report.why

    # No mistake that is known gives what is shown.
    report = check("curation.shingles", lambda text, k: {text.upper()})
    assert (report.mistake, report.why) == ("", "")


def test_one_mistake_is_not_taken_for_two():
    for exercise, name in (("model.attention", "scaled by d"), ("bpe.merge", "eats")):
        (found,) = find_exercises([exercise])
        (mistake,) = (m for m in found.mistakes if m.name.startswith(name))
        report = grade(found, mistake.function, watch=False)
        assert (report.mistake, report.why) == (mistake.name, mistake.sentence)


def test_a_changed_input_is_noticed():
    def merge(ids, pair, new_id):
        result = bpe_merge(ids, pair, new_id)
        ids.clear()
        return result

    report = check("bpe.merge", merge)
    assert report.kind == "in place" and "changes its input" in report.says


def bpe_merge(ids, pair, new_id):
    """Merge without calling the answer."""
    new, i = [], 0
    while i < len(ids):
        hit = tuple(ids[i : i + 2]) == pair
        new.append(new_id if hit else ids[i])
        i += 1 + hit
    return new


def rms_norm(x, weight, eps):
    """Normalize, without calling the answer."""
    return x / ((x * x).mean(-1, keepdim=True) + eps).sqrt() * weight


@pytest.mark.parametrize(
    ("candidate", "kind", "says"),
    [
        (lambda x, w, eps: rms_norm(x, w, eps).float(), "dtype", "torch.float32"),
        (lambda x, w, eps: rms_norm(x, w, eps)[None], "shape", "wrong shape"),
        (lambda x, w, eps: rms_norm(x, w, eps).tolist(), "type", "list"),
        (lambda x, w, eps: None, "type", "without `return`"),
        (lambda x, w, eps: 1 / 0, "error", "ZeroDivisionError"),
        (lambda x, w, eps: rms_norm(x, w, eps)[0], "shape", ""),
        (lambda x, w: x, "signature", "(x, weight, eps)"),
        (lambda weight, x, eps: x, "signature", "(x, weight, eps)"),
        (
            lambda x, weight, eps: torch.rms_norm(x, weight.shape, weight, eps),
            "answer",
            "PyTorch's own rms_norm",
        ),
    ],
)
def test_what_is_wrong_is_said(candidate, kind, says):
    report = grade(EXERCISES["model.rms_norm"], candidate, shrink=False, examples=9)
    assert (report.status, report.kind) == ("wrong", kind), str(report)
    assert says in report.says


def test_missing_generality_is_said():
    def one_row(x, weight, eps):
        rows = [rms_norm(row, weight, eps) for row in x]
        return torch.stack(rows) if x.ndim == 2 else x

    report = grade(EXERCISES["model.rms_norm"], one_row, shrink=False)
    assert (
        "Right for every 2-D input that was tried, wrong for 1-D and 3-D" in report.says
    )


def test_the_learners_lines_are_shown():
    def merge(ids, pair, new_id):
        return helper(ids)

    def helper(ids):
        return ids[10**6]

    report = check("bpe.merge", merge)
    assert report.kind == "error" and "IndexError" in report.says
    lines = report.says.splitlines()[1:]
    assert [line for line in lines if "return ids[10**6]" in line]
    assert all("grader" not in line and "hypothesis" not in line for line in lines)


def test_an_answer_that_changes_its_mind_is_wrong():
    import random

    report = check("bpe.count_pairs", lambda ids: {(0, 0): random.random()})
    assert report.status == "wrong"


def test_work_is_counted_and_not_timed():
    def slow_but_right(ids, pair, new_id):
        sum(range(10_000))  # much work, but no more of it for a longer input
        return bpe_merge(ids, pair, new_id)

    def quadratic(ids, pair, new_id):
        for _ in ids:
            for _ in ids:
                pass
        return bpe_merge(ids, pair, new_id)

    assert grade(EXERCISES["bpe.merge"], slow_but_right, examples=3).passed
    report = grade(EXERCISES["bpe.merge"], quadratic, examples=3)
    assert report.kind == "growth" and "not 4" in report.says


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
def test_an_endless_loop_is_interrupted_softly(handler, request):
    # In the background of a shell, signals of the keyboard are ignored.
    before = signal.signal(signal.SIGINT, handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))

    def merge(ids, pair, new_id):
        while True:
            pass

    start = time.monotonic()
    report = grade(EXERCISES["bpe.merge"], merge, seconds=0.2)
    assert report.kind == "endless" and "no answer within 0.2 seconds" in report.says
    assert "while True:" in report.says or "pass" in report.says
    assert report.call.startswith("merge(")
    assert time.monotonic() - start < 10
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_keyboard_interrupt_of_the_user_is_not_swallowed():
    def merge(ids, pair, new_id):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check("bpe.merge", merge)


def test_exit_is_an_error_like_others():
    report = check("bpe.merge", lambda ids, pair, new_id: exit(3))
    assert report.kind == "error" and "SystemExit" in report.says


def test_a_number_is_graded_within_its_tolerance():
    right = BY_HAND["forward"]
    assert check("flops.forward", lambda *shape: right(*shape) * 1.0009).passed
    assert not check("flops.forward", lambda *shape: right(*shape) * 1.0011).passed
    report = check("flops.forward", lambda *shape: right(*shape) / 2)
    assert report.mistake == "MAC for FLOP"
    assert check("flops.forward", lambda *shape: "many").kind == "type"
    for name, value in (("bpe.merge", [1, 2]), ("flops.forward", 291648307200)):
        with pytest.raises(TypeError, match="pass the function itself"):
            check(name, value)


def test_what_the_grader_says_of_a_number_is_not_the_answer():
    """The next try, which returns what was expected, fails for the next shape."""
    report = check("flops.forward", lambda *shape: 1.0)
    assert not check("flops.forward", lambda *shape: float(report.expected)).passed


BY_HAND = {
    "parameters": lambda v, d, n, f: 2 * v * d + n * (4 * d * d + 3 * d * f),
    "projections": lambda d: 8 * d * d,
    "forward": lambda v, d, n, f, t: (
        n * (8 * t * d**2 + 4 * t * d * f + 4 * t**2 * d) + 2 * t * d * v
    ),
    "training_step": lambda forward, batch_size: 3 * batch_size * forward,
    "training_memory": lambda n: 16 * n,
    "kv_cache": lambda n, heads, kv, d, t: 2 * n * t * (d // heads) * kv * 2,
    "days": lambda n, d, chips, peak, used: 6 * n * d / (chips * peak * used) / 86400,
    "dollars": lambda days, chips, price: days * 24 * chips * price,
}


@pytest.mark.parametrize("name", BY_HAND)
def test_the_accounts_agree_with_arithmetic_by_hand(name):
    """A second way to each number: the formulas of the hints, written out."""
    by_hand = BY_HAND[name]

    def candidate(*arguments):
        return by_hand(*arguments)

    assert check(f"flops.{name}", candidate).passed


def test_the_accounts_that_are_written_out_agree_with_the_chapter():
    from minillm import flops
    from minillm.exercises import accounting

    config = flops.preset("gpt2")
    forward = flops.forward_flops(config, 1, 64).total
    step = flops.training_flops(config, 8, 64)
    assert accounting._training_step(forward, 8) == step
    memory = flops.training_memory(config, 1, 1)
    kept = memory.weights + memory.gradients + memory.optimizer
    assert accounting._training_memory(flops.param_count(config).total) == kept
    cost = flops.training_cost(
        1e24, peak_flops=312e12, utilization=0.4, n_chips=64, dollars_per_chip_hour=2.0
    )
    assert accounting._dollars(cost.days, 64, 2.0) == pytest.approx(cost.dollars)


def test_the_prediction_can_be_made():
    assert check("emergence.predict", lambda p, q, k: (q / p) ** k).passed


def test_an_answer_that_fails_on_longer_input_is_reported():
    def merge(ids, pair, new_id):
        if len(ids) > 60:
            raise MemoryError("too long for me")
        return bpe_merge(ids, pair, new_id)

    report = check("bpe.merge", merge)
    assert (report.status, report.kind) == ("wrong", "error")
    assert "MemoryError for a longer input: too long for me" in report.says


def test_two_numbers_that_look_alike_are_shown_with_all_digits():
    def bits_per_byte(loss, n_tokens, n_bytes):
        return loss * n_tokens / n_bytes / math.log(2) * (1 + 1e-8)

    report = check("train.bits_per_byte", bits_per_byte)
    assert report.kind == "value" and report.expected != report.got


def test_a_vocabulary_is_shown_without_its_bytes():
    report = check("bpe.encode", lambda text, vocab, merges: [0])
    assert "{i: bytes([i]) for i in range(256)} | {256: b'" in report.call


def test_clipping_as_pytorch_does_it_is_right():
    def clip_gradients(gradients, max_norm):
        norm = math.sqrt(sum(float((g * g).sum()) for g in gradients))
        factor = min(1.0, max_norm / (norm + 1e-6))
        return [g * factor for g in gradients], norm

    assert check("train.clip_gradients", clip_gradients).passed


def test_check_is_a_decorator(capsys):
    @check("bpe.merge")
    def merge(ids, pair, new_id):
        return bpe_merge(ids, pair, new_id)

    assert merge([1, 2], (1, 2), 9) == [9]
    assert capsys.readouterr().out.startswith("bpe.merge: passed")


@pytest.mark.parametrize(
    ("name", "near"),
    [("murge", "bpe.merge"), ("merge", "bpe.merge"), ("bpe.mrege", "bpe.merge")],
)
def test_an_unknown_exercise_names_the_nearest(name, near):
    with pytest.raises(ValueError, match=near):
        check(name, bpe_merge)


def test_chapters_are_found():
    assert [e.chapter for e in find_exercises(["train"])] == ["train"] * 7
    assert find_exercises([]) == list(EXERCISES.values())
    with pytest.raises(ValueError, match="no exercise 'qqq'"):
        find_exercises(["qqq"])


# The learner's folder

runner = CliRunner()


def test_start_writes_stubs_and_never_over_work(tmp_path):
    folder = tmp_path / "course"
    assert runner.invoke(app, ["exercises", "start", str(folder)]).exit_code == 0
    for chapter in CHAPTERS:
        text = (folder / f"{chapter}.py").read_text(encoding="utf-8")
        assert text == chapter_text(chapter)
        assert text.count("raise NotImplementedError\n") == len(stubs(chapter))
    (folder / "bpe.py").write_text("mine", encoding="utf-8")
    (folder / "model.py").unlink()
    again = runner.invoke(app, ["exercises", "start", str(folder)])
    assert (folder / "bpe.py").read_text(encoding="utf-8") == "mine"
    assert (folder / "model.py").exists()
    assert "which was there" in again.output


def test_the_list_says_what_is_done(tmp_path):
    workbook.start(tmp_path)
    progress = workbook.Progress(tmp_path)
    progress.note(Report("bpe.merge", "passed"))
    progress.note(Report("bpe.count_pairs", "wrong", "value", "wrong result"))
    result = runner.invoke(app, ["exercises", "list", str(tmp_path)])
    assert result.exit_code == 0, result.output
    marks = dict.fromkeys(EXERCISES, "-")
    marks |= {"bpe.merge": "done", "bpe.count_pairs": "wrong"}
    *listed, bar = result.output.splitlines()
    assert bar.endswith(f"] 1 of {len(EXERCISES)} done")
    rows = [line.split(maxsplit=4) for line in listed if line.startswith("  ")]
    assert rows == [
        [exercise.name, str(exercise.minutes), "min", marks[name], exercise.title]
        for chapter in CHAPTERS
        for name, exercise in EXERCISES.items()
        if exercise.chapter == chapter
    ]
    titles = [line for line in listed if not line.startswith("  ")]
    assert titles == list(CHAPTERS.values())


def test_hints_come_one_by_one_and_the_solution_last(tmp_path):
    workbook.start(tmp_path)
    command = ["exercises", "check", "bpe.merge", str(tmp_path), "--hint"]
    outputs = [runner.invoke(app, command).output for _ in range(4)]
    shown = [
        [hint in output for hint in EXERCISES["bpe.merge"].hints] for output in outputs
    ]
    assert shown == [[True, False, False], [True, True, False], [True] * 3, [True] * 3]
    assert "--reveal" in outputs[2] and "minillm/bpe.py, lines" in outputs[2]
    revealed = runner.invoke(
        app, ["exercises", "check", "bpe.merge", "--reveal"]
    ).output
    assert "new_ids.append(new_id)" in revealed and "minillm/bpe.py" in revealed
    # Where the answer stands among the exercises, its place is not a hint.
    command[2] = "emergence.exact_match"
    last = [runner.invoke(app, command).output for _ in range(3)][-1]
    assert "--reveal" in last and "Read: " not in last


@every
def test_the_solution_says_where_it_stands(exercise):
    module, first, last = workbook.place(exercise.answer[0])
    lines = (ROOT / f"{module.replace('.', '/')}.py").read_text("utf-8").splitlines()
    assert f" {exercise.answer[0].__name__}" in "\n".join(lines[first - 1 : first + 2])
    assert last <= len(lines)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["check", "murge"], "did you mean"),
        (["check", "bpe.merge", "{empty}"], "bpe.merge my-course`"),
        (["check", "bpe.merge", "{empty}/.."], "bpe.merge broken`"),
        (["check", "no/such/folder"], "no folder"),
        (["check", "--hint", "{empty}"], "name one exercise"),
        (["check", "--json", "{empty}"], "no exercises in"),
        (["check", str(ROOT / "minillm")], "no exercises in"),
        (["check", "{broken}"], "not a record of progress"),
        (["check", "{empty}", "{broken}"], "one folder at a time"),
    ],
)
def test_bad_input_is_one_line(arguments, says, tmp_path, monkeypatch, capsys):
    from minillm.cli.app import main

    (tmp_path / "broken").mkdir()
    workbook.start(tmp_path / "broken")
    (tmp_path / "broken" / "progress.json").write_text("[1]", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    words = [
        word.format(empty=tmp_path / "empty", broken=tmp_path / "broken")
        for word in arguments
    ]
    monkeypatch.setattr("sys.argv", ["minillm", "exercises", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def fill_in(folder, chapter, **functions):
    """Do a learner's work: put code in the place of stubs."""
    path = folder / f"{chapter}.py"
    text = path.read_text(encoding="utf-8")
    for name, body in functions.items():
        start = text.index(f"def {name}(")
        hole = text.index("    raise NotImplementedError", start)
        text = text[:hole] + body + text[hole + len("    raise NotImplementedError") :]
    path.write_text(text, encoding="utf-8")


MERGE = """\
    new, i = [], 0
    while i < len(ids):
        hit = tuple(ids[i : i + 2]) == pair
        new.append(new_id if hit else ids[i])
        i += 1 + hit
    return new"""


def test_a_folder_is_graded_in_a_process_of_its_own(tmp_path):
    workbook.start(tmp_path)
    fill_in(
        tmp_path,
        "bpe",
        merge='    print("noise")\n' + MERGE,
        count_pairs="    return Counter(zip(ids[::2], ids[1::2]))",
    )
    (tmp_path / "flops.py").write_text("def forward(:\n", encoding="utf-8")
    names = ["bpe.count_pairs", "bpe.merge", "bpe.train", "flops.forward"]
    result = runner.invoke(app, ["exercises", "check", *names, str(tmp_path)])
    assert result.exit_code == 1, result.output
    assert "looks like steps over what it has counted" in result.output
    assert "flops.py does not import: SyntaxError" in result.output
    assert "flops.py, line 1" in result.output
    # The command to copy, which holds the folder, is not broken over two lines.
    lines = [n for n in result.output.splitlines() if str(tmp_path) not in n]
    assert max(map(len, lines)) <= 80
    progress = json.loads((tmp_path / "progress.json").read_text(encoding="utf-8"))
    found = {name: record["status"] for name, record in progress.items()}
    assert list(found.values()) == ["wrong", "passed", "todo", "wrong"]
    assert f"1 of {len(EXERCISES)} done" in result.output


@pytest.mark.check
def test_nothing_that_a_learner_does_takes_the_checker_down(tmp_path):
    workbook.start(tmp_path)
    fill_in(
        tmp_path,
        "bpe",
        compression_ratio="    while True: pass",
        count_pairs="    import os; os._exit(7)",
        merge=MERGE,
        choose_pair="    import ctypes; ctypes.string_at(0)",
        train="    import time\n    while True:\n        try:\n"
        "            time.sleep(1)\n"
        "        except: pass",
        encode="    return bytearray(1 << 42)",
        split_specials="    import sys; sys.exit('bye')",
        encode_stream="    raise RecursionError",
    )
    path = tmp_path / "model.py"
    path.write_text("while True:\n    pass\n", encoding="utf-8")
    (tmp_path / "train.py").write_text("import os\nos._exit(0)\n", encoding="utf-8")
    (tmp_path / "generate.py").write_text("import missing_x\n", encoding="utf-8")
    (tmp_path / "flops.py").write_text("forward = 3\n", encoding="utf-8")
    (tmp_path / "emergence.py").unlink()
    reports = {
        report.name: report
        for report in grade_folder(tmp_path, list(EXERCISES.values()), seconds=8)
    }
    assert list(reports) == list(EXERCISES)
    kinds = {name: (report.status, report.kind) for name, report in reports.items()}
    assert kinds["bpe.compression_ratio"] == ("wrong", "endless")
    assert "bpe.py, line" in reports["bpe.compression_ratio"].says
    assert kinds["bpe.count_pairs"] == ("wrong", "crash")
    assert "exit code 7" in reports["bpe.count_pairs"].says
    assert kinds["bpe.merge"] == ("passed", "")
    assert kinds["bpe.choose_pair"] == ("wrong", "crash")
    assert kinds["bpe.train"] == ("wrong", "endless")
    assert "cannot be stopped" in reports["bpe.train"].says
    assert "MemoryError" in reports["bpe.encode"].says
    assert "SystemExit: bye" in reports["bpe.split_specials"].says
    assert "RecursionError" in reports["bpe.encode_stream"].says
    assert "does not come to an end" in reports["model.softmax"].says
    assert reports["train.cross_entropy"].kind == "crash"
    assert "while the file was imported" in reports["train.cross_entropy"].says
    assert "ModuleNotFoundError: No module named 'missing_x'" in (
        reports["generate.top_k"].says
    )
    assert "generate.py, line 1" in reports["generate.top_k"].says
    assert "no function forward" in reports["flops.forward"].says
    assert reports["emergence.predict"].kind == "missing"


@pytest.mark.check
def test_a_teacher_gets_one_record_for_each_learner_and_exercise(tmp_path):
    for learner in ("ada", "bob"):
        workbook.start(tmp_path / learner)
    fill_in(tmp_path / "bob", "bpe", merge=MERGE)
    names = ["bpe.count_pairs", "bpe.merge"]
    result = runner.invoke(app, ["exercises", "check", "--json", *names, str(tmp_path)])
    records = json.loads(result.output)
    assert [(r["learner"], r["name"], r["status"]) for r in records] == [
        ("ada", "bpe.count_pairs", "todo"),
        ("ada", "bpe.merge", "todo"),
        ("bob", "bpe.count_pairs", "todo"),
        ("bob", "bpe.merge", "passed"),
    ]
    # A submission is left as it came.
    assert not list(tmp_path.rglob("progress.json"))


# The pages, and the extra


def test_pages_are_what_the_exercises_say():
    for chapter in CHAPTERS:
        page = (ROOT / "docs" / "exercises" / f"{chapter}.md").read_text(
            encoding="utf-8"
        )
        assert page == pages.chapter_page(chapter), "run `make pages`"


def test_without_hypothesis_the_extra_is_named():
    import subprocess
    import sys

    code = "import sys; sys.modules['hypothesis'] = None; import minillm.exercises"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "pip install hypothesis" in done.stderr.splitlines()[-1]


def test_only_stubs_are_unfinished():
    """Nothing else in the course raises NotImplementedError."""
    found = {
        path.relative_to(ROOT / "minillm").parts[0]
        for path in (ROOT / "minillm").rglob("*.py")
        if "raise NotImplementedError" in path.read_text(encoding="utf-8")
    }
    assert found == {"exercises"}


def test_the_grader_compares_nan_and_infinity():
    from minillm.exercises.compare import Outcome, difference

    nan, inf = torch.tensor([math.nan]), torch.tensor([math.inf])
    assert difference(Outcome(nan), Outcome(nan)) is None
    assert difference(Outcome(inf), Outcome(-inf)) is not None
    assert difference(Outcome(bpe.count_pairs([1, 1])), Outcome({(1, 1): 1})) is None


@pytest.mark.parametrize(
    ("expected", "got", "kind"),
    [
        (3, "3", "type"),
        (3, torch.tensor(3), None),
        (3, torch.tensor([3]), "type"),
        (True, 1, "value"),
        ([1, 2], 12, "type"),
        ([1, 2], [1], "value"),
        ([1, 2], (1, 2), None),
        ({"a": 1}, [("a", 1)], "type"),
        ({"a": 1}, {"a": 2}, "value"),
        ("ab", b"ab", "type"),
        # A comparison that breaks is the learner's fault, not the grader's end.
        (3.0, 10**400, "type"),
    ],
)
def test_a_value_of_another_type_is_named(expected, got, kind):
    from minillm.exercises.compare import Outcome, difference

    found = difference(Outcome(expected), Outcome(got))
    assert (found and found[0]) == kind
