"""The site in a real browser, opened from disk as a reader without a network would."""

import shutil
from collections.abc import Iterator
from pathlib import Path
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


def names(site: Path) -> list[str]:
    # The page for errors is the one that is never opened from disk.
    found = sorted(path.name for path in site.glob("*.html") if path.stem != "404")
    assert len(found) > 8
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
    assert any("bpe.html" in link for link in found), found
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
    assert ">>>" not in code
    scope: dict[str, Any] = {}
    exec(code, scope)  # the page's own example, from this repository
    assert scope["ids"][0] == 257

    # The button of a function takes the whole function.
    page = reader.open("config.html")
    page.locator(".lit[data-copy] button[data-md-type=copy]").first.click()
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
    for name in names(site):
        width = reader.open(name).evaluate("document.documentElement.scrollWidth")
        assert width <= NARROW["width"], (name, width)


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


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Any, site: Path, scheme: str) -> None:
    axe_playwright = need("axe_playwright_python.sync_playwright")
    axe = axe_playwright.Axe()
    rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
    options = {"runOnly": rules, "resultTypes": ["violations"]}
    reader = Reader(browser, site, viewport=WIDE, color_scheme=scheme)
    found = []
    for name in names(site):
        page = reader.open(name)
        used = page.evaluate("document.body.dataset.mdColorScheme")
        assert used == {"light": "default", "dark": "slate"}[scheme]
        for violation in axe.run(page, options=options).response["violations"]:
            if violation["impact"] in {"serious", "critical"}:
                targets = [node["target"] for node in violation["nodes"][:3]]
                found.append((name, violation["id"], targets))
    assert found == []
