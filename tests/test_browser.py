"""The site in a real browser, opened from disk as a reader without a network would."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from test_site import build, missing, need

pytestmark = pytest.mark.check

# A browser that asks nobody anything.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-sync",
    "--metrics-recording-only",
]
WIDE, NARROW = {"width": 1440, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("offline"), offline=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright_api = need("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        missing("there is no chromium: apt-get install chromium")
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


class Reader:
    """Opens pages and remembers what went wrong on them."""

    def __init__(self, browser: Any, site: Path, **options: Any) -> None:
        self.site = site
        self.context = browser.new_context(**options)
        # A machine that does other things as well may take its time.
        self.context.set_default_timeout(120_000)
        self.page = self.context.new_page()
        self.complaints: list[tuple[str, str]] = []
        self.name = ""
        self.page.on("console", self.on_console)
        self.page.on("pageerror", lambda e: self.complaints.append((self.name, str(e))))
        self.page.on("request", self.on_request)
        self.page.on(
            "requestfailed",
            lambda r: self.complaints.append((self.name, f"failed: {r.url}")),
        )

    def on_console(self, message: Any) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append((self.name, message.text))

    def on_request(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.complaints.append((self.name, f"asked for {request.url}"))

    def open(self, name: str) -> Any:
        self.name = name
        self.page.goto((self.site / name).as_uri())
        self.page.wait_for_function("document.readyState === 'complete'")
        return self.page


def test_the_site_builds_in_seconds(tmp_path: Path) -> None:
    # `python -m benchmarks.start site` measures it. Here, in seconds of the processor,
    # so many that no slow machine fails; where the system does not count those of a
    # child, they are 0.
    before = os.times()
    build(tmp_path, offline=True)
    after = os.times()
    spent = after.children_user + after.children_system
    assert spent - before.children_user - before.children_system < 100


def names(site: Path) -> list[str]:
    # The page for errors is the one that is never opened from disk.
    found = sorted(
        path.relative_to(site).as_posix()
        for path in site.rglob("*.html")
        if path.stem != "404"
    )
    assert "bpe.html" in found and "exercises/bpe.html" in found
    return found


def test_every_page_loads_quietly_and_renders_its_formulas(
    browser: Any, site: Path
) -> None:
    reader = Reader(browser, site, viewport=WIDE)
    formulas = 0
    for name in names(site):
        page = reader.open(name)
        expected = page.locator(".arithmatex").count()
        assert page.locator(
            ".arithmatex > .katex, .arithmatex > .katex-display"
        ).count() == (expected), name
        assert page.locator(".katex-error").count() == 0, name
        formulas += expected
    assert formulas > 50
    assert reader.complaints == []
    # KaTeX and both typefaces come from the site itself.
    fonts = reader.open("model.html").evaluate(
        "document.fonts.ready.then(fonts =>"
        " [...fonts].filter(f => f.status == 'loaded').map(f => f.family))"
    )
    assert {"Inter", "JetBrains Mono", "KaTeX_Math"} <= {f.strip('"') for f in fonts}


def test_search_finds_merge_from_disk(browser: Any, site: Path) -> None:
    reader = Reader(browser, site, viewport=WIDE)
    page = reader.open("index.html")
    page.locator(".md-search__input").click()
    page.keyboard.type("merge")
    result = page.locator(".md-search-result__link").first
    result.wait_for()
    found = page.locator(".md-search-result__link").evaluate_all(
        "links => links.map(link => link.getAttribute('href'))"
    )
    # The chapter that explains it comes before the pages behind it.
    assert "/bpe.html" in found[0], found
    assert reader.complaints == []


def test_the_copy_button_gives_code_that_runs(browser: Any, site: Path) -> None:
    reader = Reader(browser, site, viewport=WIDE)
    # ClipboardJS selects what it is about to copy; catch it in the act.
    reader.page.add_init_script(
        "document.addEventListener('copy', () =>"
        " window.copied = document.activeElement.value ?? String(getSelection()))"
    )
    page = reader.open("index.html")
    page.locator(".language-pycon button[data-md-type=copy]").first.click()
    page.wait_for_function("window.copied !== undefined")
    code = page.evaluate("window.copied")
    assert ">>>" not in code and "\n\n" not in code
    scope: dict[str, Any] = {}
    exec(code, scope)  # the page's own example, from this repository
    assert scope["ids"][0] == 257

    # The imports of a page can be copied, too.
    page = reader.open("attention.html")
    page.locator(".imports button[data-md-type=copy]").first.click()
    page.wait_for_function("window.copied !== undefined")
    assert "from minillm.attention import *" in page.evaluate("window.copied")

    # The button of a function takes the whole function.
    page = reader.open("config.html")
    lit = page.locator(".lit[data-copy]", has_text="class ModelConfig")
    lit.locator("button[data-md-type=copy]").first.click()
    page.wait_for_function("window.copied !== undefined")
    code = page.evaluate("window.copied")
    compile(code, "config.html", "exec")
    assert "class ModelConfig" in code and "def __post_init__" in code


def test_every_session_copies_as_python(browser: Any, site: Path) -> None:
    reader = Reader(browser, site)
    total = 0
    for name in names(site):
        for code in reader.open(name).eval_on_selector_all(
            ".language-pycon", "blocks => blocks.map(block => block.dataset.copy)"
        ):
            total += 1
            compile(code, name, "exec")
            assert code.strip(), name
    assert total > 50


def test_nothing_scrolls_sideways_on_a_phone(browser: Any, site: Path) -> None:
    reader = Reader(browser, site, viewport=NARROW)
    blocks = 0
    for name in names(site):
        page = reader.open(name)
        blocks += page.locator("article pre > code").count()
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= NARROW["width"], (name, width)
        # Code goes on below itself; only the rows of a table are moved in their frame.
        wide = page.eval_on_selector_all(
            "article pre > code",
            "all => all.filter(code => code.scrollWidth > code.clientWidth + 1"
            " && !code.querySelector('.aligned')).map(code => code.textContent)",
        )
        assert wide == [], name
        formulas = page.eval_on_selector_all(
            "div.arithmatex",
            "all => all.filter(part => part.scrollWidth > part.clientWidth + 1)"
            ".map(part => part.textContent)",
        )
        assert formulas == [], name
        # A table need not be moved either, but for those of many measurements.
        if name not in {"speed.html", "tokenizer/crossings.html"}:
            moved = page.eval_on_selector_all(
                "article .md-typeset__scrollwrap",
                "all => all.filter(part => part.scrollWidth > part.clientWidth)"
                ".map(part => part.textContent)",
            )
            assert moved == [], name
    assert blocks > 500


def test_formulas_side_by_side_are_divided_between_them(
    browser: Any, site: Path
) -> None:
    page = Reader(browser, site, viewport=NARROW).open("model.html")
    lines = page.locator(".katex-display", has_text="Attention").evaluate(
        "formula => [...formula.querySelectorAll('.katex-base')]"
        ".map(part => part.getBoundingClientRect().top)"
    )
    assert len(lines) == 2 and lines[0] < lines[1]


def test_no_line_of_code_begins_with_an_empty_one(browser: Any, site: Path) -> None:
    # A long word below a deep indent is divided, and does not leave the indent alone.
    reader = Reader(browser, site, viewport=NARROW)
    for name in (
        "tokenizer/learning.html",
        "files/gguf_files.html",
        "exercises/model.html",
    ):
        tops = reader.open(name).eval_on_selector_all(
            "pre .line",
            """lines => lines.filter(line => line.textContent.trim()).map(line => {
              const texts = document.createTreeWalker(line, NodeFilter.SHOW_TEXT);
              while (!/[^\\s.>]/.test(texts.nextNode().data));
              const at = texts.currentNode.data.search(/[^\\s.>]/), range = new Range();
              range.setStart(texts.currentNode, at);
              range.setEnd(texts.currentNode, at + 1);
              const top = line.getBoundingClientRect().top;
              return range.getBoundingClientRect().top - top;
            })""",
        )
        assert len(tops) > 50 and max(tops) < 8, name


def test_code_that_is_copied_by_hand_has_ordinary_spaces(
    browser: Any, site: Path
) -> None:
    page = Reader(browser, site, viewport=WIDE).open("config.html")
    copied = page.evaluate(
        """() => {
          let text;
          document.addEventListener("copy", (event) => {
            text = event.clipboardData.getData("text/plain");
          });
          const all = [...document.querySelectorAll(".lit-code code")];
          getSelection().selectAllChildren(
            all.find((code) => code.textContent.includes("__post_init__")));
          document.execCommand("copy");
          return text;
        }"""
    )
    assert "\n    def __post_init__" in copied and "\xa0" not in copied


def test_a_pattern_is_shown_with_its_spaces(browser: Any, site: Path) -> None:
    for viewport in (WIDE, NARROW):
        page = Reader(browser, site, viewport=viewport).open("tokenizer/patterns.html")
        shown = page.locator("code.spaced").evaluate_all(
            "all => all.map(code => [code.innerText, code.textContent])"
        )
        assert [r" ?\p{L}+"] * 2 in shown
        for text, source in shown:
            # A long one may be divided; no space of it is dropped.
            assert text.replace("\n", "") == source


def test_what_is_looked_up_opens(browser: Any, site: Path) -> None:
    page = Reader(browser, site, viewport=WIDE).open("bpe.html")
    fold = page.locator("details.reference").first
    field = fold.locator(".fields").first
    assert not field.is_visible()
    fold.locator("summary").focus()
    page.keyboard.press("Enter")
    assert field.is_visible()


def test_code_of_88_columns_fits_on_a_wide_screen(browser: Any, site: Path) -> None:
    reader = Reader(browser, site, viewport=WIDE)
    for name in names(site):
        wide = reader.open(name).eval_on_selector_all(
            "article pre > code",
            "all => all.filter(code => code.scrollWidth > code.clientWidth + 1)"
            ".map(code => code.textContent).filter("
            "text => text.split('\\n').every(line => line.length <= 88))",
        )
        assert wide == [], name


def test_a_printed_page_has_all_of_the_text_and_nothing_to_click(
    browser: Any, site: Path
) -> None:
    # A sheet of A4 without its margins is about 670 pixels wide.
    reader = Reader(browser, site, viewport={"width": 670, "height": 950})
    reader.page.emulate_media(media="print")
    for name in ("index.html", "bpe.html", "flops.html", "watch.html"):
        page = reader.open(name)
        for part in (".md-header", ".md-sidebar", ".md-footer", ".md-code__nav"):
            found = page.locator(part).evaluate_all(
                "all => all.filter(part => part.offsetParent !== null).length"
            )
            assert found == 0, (name, part)
        cut = page.eval_on_selector_all(
            "article pre > code",
            "all => all.filter(code => code.scrollWidth > code.clientWidth + 1).length",
        )
        assert cut == 0, name
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 670, (name, width)


WITH_CODE = ("index.html", "bpe.html", "attention.html", "commands.html", "train.html")


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Any, site: Path, scheme: str) -> None:
    axe_playwright = need("axe_playwright_python.sync_playwright")
    axe = axe_playwright.Axe()
    rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
    options = {"runOnly": rules, "resultTypes": ["violations"]}
    reader = Reader(browser, site, viewport=WIDE, color_scheme=scheme)
    found = []
    assert set(WITH_CODE) <= set(names(site))
    for name in names(site):
        page = reader.open(name)
        used = page.evaluate("document.body.dataset.mdColorScheme")
        assert used == {"light": "default", "dark": "slate"}[scheme]
        # Code has the same few colors on every page, and most of the elements.
        context = None if name in WITH_CODE else {"exclude": [[".highlight"]]}
        for violation in axe.run(page, context, options).response["violations"]:
            if violation["impact"] in {"serious", "critical"}:
                targets = [node["target"] for node in violation["nodes"][:3]]
                found.append((name, violation["id"], targets))
    assert found == []


# The widgets: what they compute is what the package computes

PAGES_WITH_WIDGETS = {
    "watch": "watch.html",
    "tokenize": "tokenize.html",
    "gradients": "backward.html",
    "flops": "where_flops_go.html",
    "sampling": "sample.html",
}


@pytest.fixture
def widget(browser: Any, site: Path) -> Any:
    reader = Reader(browser, site, viewport=WIDE)

    def open_page(name: str) -> Any:
        page = reader.open(PAGES_WITH_WIDGETS[name])
        page.locator(f"[data-widget={name}][data-ready]").wait_for()
        return page

    yield open_page
    assert reader.complaints == []
    reader.context.close()


def texts_to_encode() -> list[str]:
    from minillm.data import andersen

    random = Random(0)
    alphabet = (
        " \t\n\r\x0b\x1c\x85\xa0\u2003\u3000\ufeff'’.,!?019٣Ⅷ²aszñéñ好ह\u093fи🌍\x00"
    )
    alphabet += "ABCthe "
    made = [
        "".join(random.choices(alphabet, k=random.randint(0, 40))) for _ in range(400)
    ]
    tale = max(andersen(), key=len)
    cut = [tale[i : i + 200] for i in range(0, 20_000, 200)]
    return ["", "don't DON'T it'll 've", "  two  spaces  ", "a\n\n b\r\n", *cut, *made]


def test_the_page_tokenizes_as_the_package_does(widget: Any) -> None:
    from minillm.bpe import BPETokenizer
    from minillm.drawing.widgets import VOCAB_SIZES, read

    page, texts = widget("tokenize"), texts_to_encode()
    flat = read("tokenize")["merges"]
    vocab, merges = {i: bytes([i]) for i in range(256)}, []
    for a, b in zip(flat[::2], flat[1::2], strict=True):
        merges.append((vocab[a], vocab[b]))
        vocab[len(vocab)] = vocab[a] + vocab[b]
    for size in VOCAB_SIZES:
        tokenizer = BPETokenizer(
            {i: vocab[i] for i in range(size)}, merges[: size - 256]
        )
        theirs = page.evaluate(
            "([texts, size]) => {"
            " const ranks = minillm.ranks(minillm.data.tokenize.merges);"
            " return texts.map(text => minillm.encode(text, ranks, size)) }",
            [texts, size],
        )
        for text, ids in zip(texts, theirs, strict=True):
            assert ids == tokenizer.encode(text), (size, text)


def test_the_sentence_can_be_changed(widget: Any) -> None:
    page = widget("tokenize")
    counts = page.locator(".w-count")
    assert counts.count() == 6
    page.get_by_label("Your text").fill("the cat xyzzy")
    assert counts.nth(0).inner_text().startswith("13 tokens, 1.00 bytes each")
    assert counts.nth(1).inner_text().startswith("13 tokens, 1.00")
    assert "3 tokens" in counts.nth(2).inner_text()
    assert "lost, there is no way back" in counts.nth(2).inner_text()
    assert page.locator(".w-unknown").count() == 1
    page.get_by_label("Your text").fill("")
    assert counts.nth(3).inner_text() == "0 tokens"


def test_the_page_counts_flops_as_the_package_does(widget: Any) -> None:
    from dataclasses import asdict

    from minillm.flops import (
        PRESETS,
        Architecture,
        forward_flops,
        inference_memory,
        param_count,
        training_memory,
    )

    random = Random(0)
    dense = [shape for shape in PRESETS.values() if shape.n_experts == 1]  # as offered
    cases = [(shape, 1, shape.context_length) for shape in dense]
    for _ in range(300):
        heads, kv = random.choice([(1, 1), (4, 2), (8, 8), (12, 3), (32, 8)])
        shape = Architecture(
            random.randint(1, 100_000),
            random.randint(1, 10_000),
            heads * 2 * random.randint(1, 128),
            random.randint(1, 100),
            heads,
            kv,
            random.randint(1, 10_000),
            mlp_matrices=random.choice([2, 3]),
            tie_embeddings=random.random() < 0.5,
            biases=random.random() < 0.5,
            position_rows=random.choice([0, random.randint(1, 5000)]),
        )
        cases.append((shape, random.randint(1, 64), random.randint(1, 10_000)))
    theirs = widget("flops").evaluate(
        "cases => cases.map(([c, b, t]) => ["
        " minillm.forwardFlops(c, b, t), minillm.paramCount(c),"
        " minillm.trainingMemory(c, b, t), minillm.inferenceMemory(c, b, t)])",
        [(asdict(shape), b, t) for shape, b, t in cases],
    )
    for (shape, b, t), found in zip(cases, theirs, strict=True):
        mixed = {"weight_bytes": 2, "gradient_bytes": 2, "optimizer_bytes": 12}
        ours = [
            forward_flops(shape, b, t),
            param_count(shape),
            training_memory(shape, b, t, **mixed, activation_bytes=2),
            inference_memory(shape, b, t),
        ]
        for count, other in zip(ours, found, strict=True):
            expected = count.as_dict()
            assert "total" in other
            for name, value in other.items():
                # Above 2^53 a number of JavaScript is rounded.
                assert value == pytest.approx(expected[name], rel=1e-14), (shape, name)


def test_model_and_context_can_be_chosen(widget: Any) -> None:
    from minillm.flops import forward_flops, preset

    page = widget("flops")
    page.get_by_label("Model").select_option("llama3-8b")
    for power in (10, 20):
        slider = page.get_by_label("Context")
        slider.fill(str(power))
        shares = forward_flops(preset("llama3-8b"), 1, 2**power).shares()
        shown = page.locator(".widget table td:nth-child(2)").all_inner_texts()
        assert shown == [f"{100 * share:.1f}\u00a0%" for share in shares.values()]
    assert "more than it was made for" in page.locator(".widget").inner_text()
    # A keyboard does as well.
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert "524,288 tokens" in page.locator(".widget").inner_text()


def test_the_page_filters_as_the_package_does(widget: Any) -> None:
    import torch

    from minillm.drawing.widgets import read
    from minillm.generate import apply_temperature, top_k_filter, top_p_filter

    random, page = Random(0), widget("sampling")
    prompts = read("sampling")["prompts"]
    for _ in range(60):
        prompt = random.choice([*prompts])
        t, p = random.uniform(0.1, 3), random.choice([1, random.uniform(0.05, 1)])
        k = random.choice([2048, random.randint(1, 60)])
        theirs = page.evaluate(
            "([prompt, temperature, topK, topP]) => minillm.distribution("
            "minillm.data.sampling.prompts[prompt], {temperature, topK, topP})",
            [prompt, t, k, p],
        )
        logits = torch.tensor(prompts[prompt], dtype=torch.float64)
        logits = top_p_filter(top_k_filter(apply_temperature(logits, t), k), p)
        ours = logits.softmax(0)
        found = torch.tensor(theirs["probabilities"], dtype=torch.float64)
        assert torch.equal(found > 0, ours > 0)
        torch.testing.assert_close(found, ours, rtol=1e-9, atol=1e-15)


def test_sliders_change_what_is_drawn_from(widget: Any) -> None:
    page = widget("sampling")
    status = page.locator(".w-status")
    assert status.inner_text().startswith("2048 of 2048 tokens")
    page.get_by_label("Top-k").fill("2")
    assert status.inner_text().startswith("4 of 2048 tokens")
    page.get_by_label("Temperature").fill("0.1")
    page.get_by_text("Draw twenty").click()
    drawn = page.locator(".w-made .w-token")
    assert drawn.count() == 20
    kept = page.locator("tbody tr:not(.w-gone) .w-token").all_inner_texts()
    assert len(kept) == 4 and set(drawn.all_inner_texts()) <= set(kept)
    page.get_by_text("As the model says").click()
    assert status.inner_text().startswith("2048 of 2048 tokens")


def test_merges_go_forward_and_back(widget: Any) -> None:
    from minillm.drawing.widgets import read

    page = widget("watch")
    title, story = next(iter(read("watch").items()))
    assert page.locator(".widget select").input_value() == title
    forward, back = page.get_by_label("Next merge"), page.get_by_label("One merge back")

    def shown() -> list[int]:
        return page.locator(".w-piece").evaluate_all(
            "pieces => pieces.map(piece => piece.children.length)"
        )

    def expected(step: int) -> list[int]:
        return [len(piece) for piece in story["states"][step]["pieces"]]

    assert back.is_disabled() and shown() == expected(0)
    for step in range(1, len(story["states"])):
        assert forward.is_enabled()
        forward.focus()
        page.keyboard.press("Enter")
        assert shown() == expected(step)
        counts = page.locator(".w-columns td:nth-child(2)").all_inner_texts()
        assert counts == [str(n) for _, _, n in story["states"][step]["pairs"]]
    assert forward.is_disabled()
    back.click()
    assert shown() == expected(len(story["states"]) - 2)


def test_the_tape_is_walked_forward_and_back(widget: Any) -> None:
    from minillm.drawing.widgets import read

    page, graphs = widget("gradients"), read("gradients")
    for title, graph in graphs.items():
        page.locator(".widget select").select_option(title)
        status, slopes = page.locator(".w-status"), page.locator(".w-graph .w-grad")
        for i, step in enumerate(graph["steps"]):
            assert status.inner_text().endswith(step["says"])
            known = [
                f"{x:.3f}".replace("-", "−") for x in step["grads"] if x is not None
            ]
            assert slopes.all_text_contents() == known
            assert page.locator(".w-share").count() == len(step["passed"])
            if i < len(graph["steps"]) - 1:
                page.get_by_role("button", name="Next step").click()
        assert page.get_by_role("button", name="Next step").is_disabled()
        page.get_by_role("button", name="forward pass").click()
        assert slopes.count() == 0
        page.get_by_role("slider").press("ArrowRight")  # a keyboard does as well
        assert slopes.all_text_contents() == ["1.000"]


def test_without_scripts_the_widgets_are_tables(browser: Any, site: Path) -> None:
    reader = Reader(browser, site, java_script_enabled=False)
    for page_name in PAGES_WITH_WIDGETS.values():
        reader.page.goto((site / page_name).as_uri())
        fallback = reader.page.locator(".widget :is(table, svg)")
        assert fallback.count() == 1 and fallback.is_visible(), page_name
