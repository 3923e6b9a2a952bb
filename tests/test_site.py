"""The course site: it builds strictly, and what it shows is what the package says."""

import ast
import doctest
import hashlib
import importlib
import importlib.util
import os
import re
import subprocess
import sys
import zlib
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
VENDOR = DOCS / "assets" / "vendor"
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta"}
VOID |= {"path", "source", "track", "wbr"}


def missing(reason: str) -> NoReturn:
    """Skip on a user's machine, fail where everything should be installed."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def need(name: str) -> ModuleType:
    """Import a library that a check needs, and a reader does not."""
    try:
        return importlib.import_module(name)
    except ImportError:
        missing(f"{name} is not installed: pip install -e '.[docs,test]'")


def build(folder: Path, offline: bool) -> Path:
    for needed in ("mkdocs", "material", "mkdocstrings_handlers"):
        if importlib.util.find_spec(needed) is None:
            missing(f"the site needs {needed}: pip install -e '.[docs]'")
    environment = os.environ | {
        "NO_MKDOCS_2_WARNING": "1",
        "OFFLINE": str(offline).lower(),
    }
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)]
    result = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return folder


class Page(HTMLParser):
    """What the tests ask of a built page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.formulas: list[str] = []
        self.prose = ""
        self.open: list[tuple[str, str]] = []
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)

    def handle_starttag(
        self, tag: str, attributes: list[tuple[str, str | None]]
    ) -> None:
        values = {name: value or "" for name, value in attributes}
        self.ids |= {values[key] for key in ("id", "name") if key in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "link" and values.get("rel") not in {"prev", "next", "canonical"}:
            self.loads.append(values["href"])
        if tag != "a":
            self.loads += [values[key] for key in ("src", "srcset") if key in values]
        if tag not in VOID:
            self.open.append((tag, values.get("class", "")))
            if values.get("class") == "arithmatex":
                self.formulas.append("")

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if any(css == "arithmatex" for _, css in self.open):
            self.formulas[-1] += data
        elif not {"code", "pre", "script", "style"} & {tag for tag, _ in self.open}:
            self.prose += data


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Page]:
    site = build(tmp_path_factory.mktemp("site"), offline=True)
    return {
        path.relative_to(site).as_posix(): Page(path) for path in site.rglob("*.html")
    }


def navigation() -> list[str]:
    """Every page, in the order of the navigation."""
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    nav = text[text.index("\nnav:") : text.index("\ntheme:")]
    return re.findall(r"([\w/-]+)\.md$", nav, re.MULTILINE)


def learners_path() -> list[str]:
    """The pages before the exercises, without the landing page."""
    pages = navigation()
    return pages[1 : pages.index("exercises")]


def modules_on(page: str) -> list[str]:
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(r"^::: minillm\.([\w.]+)$", text, re.MULTILINE)


def links(markdown: str) -> list[str]:
    return re.findall(r"\]\(([\w/-]+)\.md[)#]", markdown)


def shown_modules() -> dict[str, str]:
    """The modules on the site, and the page of each."""
    return {module: page for page in navigation() for module in modules_on(page)}


def chapters() -> dict[str, int]:
    """The chapters and their numbers, from the syllabus."""
    tree = ast.parse((ROOT / "minillm" / "__init__.py").read_text(encoding="utf-8"))
    found = re.findall(
        r"^(\d+)\. \[`minillm\.(\w+)`\]", ast.get_docstring(tree) or "", re.MULTILINE
    )
    assert len(found) > 5
    return {name: int(number) for number, name in found}


# The site as a whole


@pytest.mark.check
def test_the_strict_build_passes_with_the_addresses_of_a_server(tmp_path: Path) -> None:
    # The other form, for reading from disk, is built for the tests below.
    assert (build(tmp_path, offline=False) / "notation" / "index.html").exists()


@pytest.mark.check
def test_no_page_loads_anything_from_outside(pages: dict[str, Page]) -> None:
    site = pages["index.html"].path.parent
    loads = [url for page in pages.values() for url in page.loads]
    assert any("katex.min.js" in url for url in loads)  # or we looked wrongly
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        loads += re.findall(r"""url\(["']?([^)"']+)""", text)
        loads += re.findall(r"""@import\s+["']([^"']+)""", text)
    assert [url for url in loads if re.match(r"(?:[a-z]+:)?//", url)] == []
    # Without a polyfill of our own, Material's search asks unpkg.com.
    assert not [name for name, page in pages.items() if "unpkg.com" in page.html]


@pytest.mark.check
def test_every_internal_link_and_anchor_resolves(pages: dict[str, Page]) -> None:
    broken = []
    for name, page in pages.items():
        for link in page.links:
            if re.match(r"[a-z]+:", link) or name == "404.html":
                continue
            target, _, anchor = link.partition("#")
            path = (page.path.parent / target).resolve() if target else page.path
            path = path / "index.html" if path.is_dir() else path
            other = next((p for p in pages.values() if p.path == path), None)
            if not path.exists() or (anchor and anchor not in (other or page).ids):
                broken.append((name, link))
    assert broken == []


@pytest.mark.check
def test_every_formula_parses(pages: dict[str, Page]) -> None:
    math_core = need("math_core")
    converter = math_core.LatexToMathML()
    total, wrong = 0, []
    for name, page in pages.items():
        for formula in page.formulas:
            total += 1
            try:
                converter.convert_with_local_state(
                    formula.strip()[2:-2],
                    displaystyle=formula.strip().startswith("\\["),
                )
            except math_core.LatexError as error:
                wrong.append((name, formula, str(error)))
    assert wrong == []
    assert total > 50


@pytest.mark.check
def test_no_formula_is_left_as_text(pages: dict[str, Page]) -> None:
    left = [
        (name, match[0])
        for name, page in pages.items()
        for match in re.finditer(r"\$[^$\n]+\$|\\\(|\\\[|\\frac", page.prose)
    ]
    assert left == []


@pytest.mark.check
def test_no_formula_is_left_in_code(pages: dict[str, Page]) -> None:
    # A comment on a line of its own becomes prose; one behind code stays as it is.
    comment = re.compile(r'<span class="c1">([^<]*)</span>')
    comments = [c for page in pages.values() for c in comment.findall(page.html)]
    assert len(comments) > 50
    assert [c for c in comments if re.search(r"\$.+\$", c)] == []


@pytest.mark.check
def test_no_reference_is_left_in_brackets(pages: dict[str, Page]) -> None:
    # A name that is divided from its target by a line's end links to nothing.
    found = {name: "][" in page.prose for name, page in pages.items()}
    assert "train.html" in found
    assert [name for name, left in found.items() if left] == []


@pytest.mark.check
def test_no_session_is_left_as_a_quotation(pages: dict[str, Page]) -> None:
    quoted = re.compile(r"<blockquote>\s*<blockquote>")
    assert [name for name, page in pages.items() if quoted.search(page.html)] == []


@pytest.mark.check
def test_no_token_was_taken_for_markup(pages: dict[str, Page]) -> None:
    # A bare <s> in a comment would strike out the rest of the page.
    shown = "a article aside blockquote br clipPath code dd defs details div dl dt em g"
    shown += " h1 h2 h3 h4 hr li ol p path pre rect section span strong summary svg"
    shown += " table tbody td text th thead tr tspan ul use"
    article = re.compile(r"<article.*?</article>", re.DOTALL)
    for name, page in pages.items():
        tags = re.findall(r"<([a-zA-Z]\w*)", "".join(article.findall(page.html)))
        assert set(tags) <= set(shown.split()), name


@pytest.mark.check
def test_no_page_is_too_heavy(pages: dict[str, Page]) -> None:
    sizes = {name: len(page.html.encode()) for name, page in pages.items()}
    assert max(sizes.values()) < 320_000, sizes


# What is on it


@pytest.mark.check
def test_the_chapters_stand_in_the_order_of_the_syllabus(
    pages: dict[str, Page],
) -> None:
    shown = shown_modules()
    assert [*chapters()] == [name for name in shown if name in chapters()]
    assert list(chapters().values()) == sorted(set(chapters().values()))
    for name, number in chapters().items():
        assert f"<p>Chapter {number}. About" in pages[f"{shown[name]}.html"].html, name
    others = set(shown) - set(chapters())
    assert not [m for m in others if "<p>Chapter " in pages[f"{shown[m]}.html"].html]


def test_no_title_is_numbered_by_hand() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    nav = text[text.index("\nnav:") : text.index("\ntheme:")]
    assert re.findall(r"^ *- \d.*", nav, re.MULTILINE) == []
    for page in navigation():
        text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
        assert not re.search(r"^#+ \d", text, re.MULTILINE), page


def test_a_chapter_that_is_named_by_its_number_has_that_number() -> None:
    numbers = {shown_modules()[name]: number for name, number in chapters().items()}
    seen = 0
    for file in [*DOCS.glob("*.md"), ROOT / "README.md"]:
        text = file.read_text(encoding="utf-8")
        for number, page in re.findall(
            r"\[[Cc]hapter\s+(\d+)\]\((?:docs/)?(\w+)\.md", text
        ):
            seen += 1
            assert numbers[page] == int(number), (file.name, page)
    assert seen > 5
    for name, number in chapters().items():
        stubs = ROOT / "minillm" / "exercises" / "stubs" / f"{name}.py"
        if stubs.exists() and name != "model":  # which has those to attention, too
            text = stubs.read_text(encoding="utf-8")
            assert text.startswith(f'r"""Exercises to chapter {number}: '), name
    # The table of the landing page has every chapter.
    table = re.findall(
        r"^\| (\d+) \| \[.*?\]\((\w+)\.md\)",
        (DOCS / "index.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert {page: int(number) for number, page in table} == numbers


def test_there_is_one_start_and_the_plan_is_the_way() -> None:
    plan = (DOCS / "using.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \d+ \| (.*?) \|", plan, re.MULTILINE)
    planned = [page for row in rows for page in links(row)]
    assert planned == learners_path()
    landing = (DOCS / "index.md").read_text(encoding="utf-8")
    begin = re.findall(r"\((\S+)\.md\)\{ \.go \}", landing)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    first_read = links(readme.replace("(docs/", "("))[0]
    assert begin == [first_read] == [learners_path()[0]] == ["language-model"]


@pytest.mark.check
def test_next_and_previous_follow_the_plan(pages: dict[str, Page]) -> None:
    order = ["index", *learners_path()]
    for page, following in pairwise(order):
        html = pages[f"{page}.html"].html
        target = re.search(
            r'<a href="([^"]+)" class="md-footer__link md-footer__link--next"', html
        )
        assert target, page
        found = (pages[f"{page}.html"].path.parent / target[1]).resolve()
        assert found == pages[f"{following}.html"].path, page
    # So no page says it once more, in another way.
    for page in learners_path():
        text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
        assert not re.search(r"^Next: ", text, re.MULTILINE), page
        assert "<strong>Next:</strong>" not in pages[f"{page}.html"].html, page


def test_next_in_a_module_is_what_the_plan_has_next() -> None:
    # The site leaves these words out. In an editor they are the only way on; they name
    # the next page of a module, or the next chapter.
    path = [module for page in learners_path() for module in modules_on(page)]
    following = dict(pairwise(path)) | {path[-1]: ""}
    chapter = dict(pairwise(chapters()))
    seen = 0
    for name in path:
        file = ROOT / "minillm" / f"{name.replace('.', '/')}.py"
        if not file.exists():
            continue
        lesson = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        for named in re.findall(r"\*\*Next:\*\*\s+\[`minillm\.([\w.]+)`\]", lesson):
            seen += 1
            assert named in {following[name], chapter.get(name)}, name
    assert seen > 20


@pytest.mark.check
def test_every_chapter_says_what_it_gives_and_what_it_builds_on(
    pages: dict[str, Page],
) -> None:
    shown = shown_modules()
    for name in [*chapters(), "config"]:
        text = (DOCS / f"{shown[name]}.md").read_text(encoding="utf-8")
        before, after = text.split(f"::: minillm.{name}\n")
        assert "{ .goals }" in before, name
        assert "## Summary" in after and "## Exercises" in after, name
        html = pages[f"{shown[name]}.html"].html
        minutes = re.search(
            r"About (\d+) minutes? to read, examples included; \d+ lines of code", html
        )
        assert minutes and 1 <= int(minutes[1]) <= 90, name
        assert html.count("Before this:") == (name != "config"), name


def test_reading_time_is_that_of_the_lecture() -> None:
    need("griffe")
    literate = load(ROOT / "renderer" / "literate.py")
    prose, code = "word " * 400, "\n".join(f"x = {i}" for i in range(48))
    folded = 'def f():\n    """Do.\n\n    Args:\n        x: '
    folded += f"{prose}\n\n    Raises:\n        E: {prose}\n"
    for text, expected in {
        f'"""{prose}"""': (2, 0),
        f"# {prose}": (2, 0),
        f'"""{prose}"""\n{code}': (2, 48),
        f'"""{prose}\n\n' + ">>> 1 + 1\n2\n" * 24 + '"""': (4, 0),
        f'{folded}    """': (1, 1),
        f'{folded}\n    Examples:\n        {prose * 2}\n    """': (4, 1),
    }.items():
        source = literate.Source(text)
        found = literate.minutes(source), literate.code_lines(source)
        assert found == expected, text[:60]


def test_what_comes_before_a_chapter_moves_to_its_top() -> None:
    griffe = need("griffe")
    before = load(ROOT / "renderer" / "literate.py").before

    def moved(docstring: str) -> tuple[str, str]:
        module = griffe.Module("m")
        module.docstring = griffe.Docstring(docstring, parent=module, parser="google")
        return before(module), module.docstring.parsed[0].value

    link = "[`minillm.bpe`][], at\nlast."
    # What comes next stands at the foot of the page.
    both = f"One.\n\n**Before this:** {link} **Next:** [`a.b`][], two.\n\nEnd."
    assert moved(both) == (link, "One.\n\n\n\nEnd.")
    table = "| a |\n|---|\n| b |"
    assert moved(f"{table}\n\n**Next:** [`a.b`][].") == ("", f"{table}\n\n")
    assert moved(f"{table}\n\n**Next:** [`a.b`][]. End.") == ("", f"{table}\n\n End.")
    assert moved("One. **Next:** two. **Used by** x.") == ("", "One. **Used by** x.")
    # More than a sentence stays where it is.
    long = "One.\n\n**Before this:** a. So b."
    assert moved(long) == ("", long)
    assert moved("One.") == ("", "One.")


def test_no_page_stands_twice_in_the_navigation() -> None:
    listed = navigation()
    assert sorted(listed) == sorted(set(listed))


def modules() -> set[str]:
    paths = [path.relative_to(ROOT) for path in (ROOT / "minillm").rglob("[a-z]*.py")]
    names = {".".join(path.with_suffix("").parts[1:]) for path in paths}
    # The exercises have one page together.
    return {"exercises", *(m for m in names if not m.startswith("exercises."))}


def test_every_module_of_the_lesson_has_a_page_and_the_rest_is_listed() -> None:
    shown = shown_modules()
    text = (DOCS / "behind.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `minillm\.([\w.]+)` \|", text, re.MULTILINE)
    assert sorted([*shown, *listed]) == sorted(modules())
    lesson = {name for name in modules() if "." not in name} - {"exercises"}
    assert {name for name in lesson if shown[name] not in learners_path()} == set()
    folders = re.findall(r"^\| `minillm/(\w+)/` \|", text, re.MULTILINE)
    packages = {file.parent.name for file in (ROOT / "minillm").glob("*/__init__.py")}
    assert set(folders) == packages


@pytest.mark.check
def test_no_page_is_about_not_explaining_something(pages: dict[str, Page]) -> None:
    empty = "The course does not explain"
    assert [name for name, page in pages.items() if empty in page.prose] == []


@pytest.mark.check
@pytest.mark.parametrize(
    "module", [m for page in learners_path() for m in modules_on(page)]
)
def test_examples_run_after_the_imports_that_the_page_shows(module: str) -> None:
    need("griffe")
    literate = load(ROOT / "renderer" / "literate.py")
    lesson = importlib.import_module(f"minillm.{module}")
    source = literate.Source(Path(str(lesson.__file__)).read_text(encoding="utf-8"))
    lines = literate.imports(source, lesson.__name__, set(lesson.__all__))
    said: list[str] = []
    examples = 0
    for test in doctest.DocTestFinder().find(lesson):
        test.globs = {"__name__": "__main__"}
        exec("\n".join(lines), test.globs)
        doctest.DocTestRunner(verbose=False).run(test, out=said.append)
        examples += len(test.examples)
    assert bool(lines) == bool(examples)
    assert said == [], "".join(said)


@pytest.mark.check
def test_a_page_shows_the_imports_of_its_examples(pages: dict[str, Page]) -> None:
    griffe = need("griffe")
    literate = load(ROOT / "renderer" / "literate.py")
    shown = 0
    for page in learners_path():
        for module in modules_on(page):
            lesson = importlib.import_module(f"minillm.{module}")
            text = Path(str(lesson.__file__)).read_text(encoding="utf-8")
            lines = literate.imports(
                literate.Source(text), lesson.__name__, set(lesson.__all__)
            )
            block = re.search(
                r'<div class="imports">.*?<pre>(.*?)</pre>',
                pages[f"{page}.html"].html,
                re.DOTALL,
            )
            code = unescape(re.sub(r"<[^>]+>", "", block[1])) if block else ""
            assert code.strip().split("\n") == (lines or [""]), page
            shown += bool(lines)
    assert shown > 20 and griffe


@pytest.mark.check
def test_what_is_looked_up_is_folded(pages: dict[str, Page]) -> None:
    html = pages["train.html"].html
    folds = re.findall(r'<details class="reference">\s*<summary>(.*?)</', html)
    assert "Arguments, result, errors" in folds or "Arguments, errors" in folds, folds
    outside = re.sub(r"<details.*?</details>", "", html, flags=re.DOTALL)
    assert '<div class="fields">' not in outside
    # Where the arguments are the lesson, they are open.
    assert '<details class="reference" open>' in pages["config.html"].html


@pytest.mark.check
def test_a_pattern_keeps_its_spaces(pages: dict[str, Page]) -> None:
    """The spans of the built pages are those of the sources, edges included."""
    pattern = re.compile(r"<code([^>]*)>([^<]*)</code>")
    spans = [found for page in pages.values() for found in pattern.findall(page.html)]
    assert (' class="spaced"', " mat") in spans
    # Whatever has spaces that a browser would drop asks it to keep them.
    lost = [
        (name, code)
        for name, page in pages.items()
        for css, code in pattern.findall(page.html)
        if code != " ".join(code.split()) and "spaced" not in css and "\n" not in code
    ]
    assert lost == []
    sheet = (DOCS / "assets" / "course.css").read_text(encoding="utf-8")
    assert re.search(r"code\.spaced \{ white-space: (break-spaces|pre-wrap)", sheet)


def test_a_bar_in_a_table_is_a_bar() -> None:
    markdown = need("markdown")
    table = "| a | b |\n|---|---|\n| `x\\|y` | c\\|d |\n\n`x\\|y`"
    html = markdown.markdown(table, extensions=["tables", "renderer.spans"])
    assert re.findall(r"<td>(.*)</td>", html) == ["<code>x|y</code>", "c|d"]
    assert r"<p><code>x\|y</code></p>" in html


def test_code_spans_follow_commonmark() -> None:
    markdown = need("markdown")
    for text, expected in {
        "` ?x`": '<code class="spaced"> ?x</code>',
        "`x `": '<code class="spaced">x </code>',
        "` x `": "<code>x</code>",
        "`` `x` ``": "<code>`x`</code>",
        "` `": '<code class="spaced"> </code>',
        "`a  b`": '<code class="spaced">a  b</code>',
        "`a\n   b`": "<code>a b</code>",
        "`<s>&`": "<code>&lt;s&gt;&amp;</code>",
        r"\`x\`": "`x`",
        "``a`b``, `c`": "<code>a`b</code>, <code>c</code>",
    }.items():
        html = markdown.markdown(text, extensions=["renderer.spans"])
        assert html == f"<p>{expected}</p>", text


@pytest.mark.check
def test_every_public_name_is_on_the_page_of_its_module(pages: dict[str, Page]) -> None:
    absent = []
    for module, name in shown_modules().items():
        path = ROOT / "minillm" / f"{module.replace('.', '/')}.py"
        path = path if path.exists() else ROOT / "minillm" / module / "__init__.py"
        source = path.read_text(encoding="utf-8")
        exported = re.search(r"^__all__ = \[(.*?)\]", source, re.MULTILINE | re.DOTALL)
        page = pages[f"{name}.html"]
        for public in re.findall(r'"(\w+)"', exported[1] if exported else ""):
            # Defined here, or imported and linked to where it is defined.
            linked = re.search(rf'href="[\w./]*#minillm\.[\w.]+\.{public}"', page.html)
            if f"minillm.{module}.{public}" not in page.ids and not linked:
                absent.append(f"minillm.{module}.{public}")
    assert absent == []


def test_every_paper_that_a_chapter_cites_is_listed() -> None:
    cited = {
        paper
        for path in [*(ROOT / "minillm").rglob("*.py"), *DOCS.rglob("*.md")]
        if path.name != "references.md"
        for paper in re.findall(
            r"arXiv[: ]\s*(\d{4}\.\d{4,5})", path.read_text(encoding="utf-8")
        )
    }
    listed = (DOCS / "references.md").read_text(encoding="utf-8")
    assert cited
    assert {paper for paper in cited if f"arXiv:{paper}" not in listed} == set()


def test_references_are_in_the_order_of_the_years_and_arxiv_has_the_first() -> None:
    listed = (DOCS / "references.md").read_text(encoding="utf-8")
    years = []
    for line in re.findall(r"^- .*$", listed, re.MULTILINE):
        bare = re.sub(r"\(.*?\)|`.*?`", "", line)
        years.append(int(re.findall(r"\b(?:19|20)\d\d\b", bare)[-1]))
        for first in re.findall(r"\[arXiv:(\d\d)", line):
            assert f" 20{first}. [arXiv:" in line, line
            years[-1] = 2000 + int(first)
    assert years == sorted(years)


def test_sources_without_a_number_are_listed() -> None:
    listed = (DOCS / "references.md").read_text(encoding="utf-8")
    text = "".join(
        file.read_text(encoding="utf-8")
        for file in [*(ROOT / "minillm").rglob("*.py"), *DOCS.rglob("*.md")]
        if file.name != "references.md"
    )
    sources = "Roller, metaseq, SemiAnalysis, Wired, Karpathy, CS336, Spolsky, Kneser"
    for source in sources.split(", "):
        assert source in text and source in listed, source


def test_the_glossary_is_in_the_order_of_the_alphabet() -> None:
    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    terms = re.findall(r"^(\S.*)\n:   ", text, re.MULTILINE)
    assert len(terms) > 30
    assert terms == sorted(terms, key=lambda t: t.partition(",")[0].lower())
    # What a reader will meet in the next paper.
    words = {word.strip().lower() for term in terms for word in term.split(",")}
    standard = """
        language model, Transformer, parameter, token, sampling, cross-entropy, negative
        log-likelihood, logits, validation split, held-out text, gradient accumulation,
        micro-batch, all-reduce, data parallelism, rank, world size, warm-up, cosine
        decay, learning-rate schedule, unigram, trigram, metric, weight decay, gradient
        norm, mixed precision, bf16, nonlinearity, matrix multiplication, matmul,
        next-token prediction, autoregressive, backpropagation, overfitting, epoch,
        hyperparameter, throughput, latency, random number generator, GGUF
    """
    assert {" ".join(word.lower().split()) for word in standard.split(",")} <= words


def test_vendored_files_are_unmodified() -> None:
    text = (VENDOR / "VENDOR.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^([0-9a-f]{64})  (\S+/\S+)$", text, re.MULTILINE))
    found = {
        hashlib.sha256(path.read_bytes()).hexdigest(): path.relative_to(VENDOR)
        for path in VENDOR.rglob("*")
        if path.is_file() and path.name != "VENDOR.md"
    }
    assert {key: str(path.as_posix()) for key, path in found.items()} == listed


# The extension


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.check
def test_each_chapter_offers_its_notebook(pages: dict[str, Page]) -> None:
    need("nbformat")
    from minillm.cli.chapter_parts import chapters
    from minillm.cli.notebook_cells import notebook

    for name in chapters().values():
        page = pages[f"{name}.html"]
        assert f"notebooks/{name}.ipynb" in page.links
        written = page.path.parent / "notebooks" / f"{name}.ipynb"
        assert written.read_text(encoding="utf-8") == notebook(name)
    offered = [page for page in pages.values() if ".ipynb" in "".join(page.links)]
    assert len(offered) == len(chapters())


def test_inventories_are_what_their_script_writes() -> None:
    need("mkdocstrings")
    folder = ROOT / "renderer" / "inventories"
    script = load(folder / "make.py")
    for project, names in {"python": script.PYTHON, "torch": script.TORCH}.items():
        committed = (folder / f"{project}.inv").read_bytes()
        fresh = script.inventory(project, names)
        header = fresh.index(b"zlib.\n") + 6
        assert committed[:header] == fresh[:header]
        assert zlib.decompress(committed[header:]) == zlib.decompress(fresh[header:])


SAMPLE = '''\
r"""A sample.

Prose with a session:

>>> 1 + 1  # doctest: +SKIP
2

The end.
"""

import math
from collections import Counter
from dataclasses import dataclass

__all__ = ["LIMIT", "Box", "area"]

# Why eight? Because $2^3$.
LIMIT = 8

_HIDDEN = 3  # no heading, but on the page


@dataclass
class Box:
    """A box.

    Args:
        width: how wide.
    """

    # In metres.
    width: float
    """Never negative."""

    def __post_init__(self) -> None:
        """Check."""
        if self.width < 0:
            raise ValueError("no")

    def forward(self) -> float:
        return self.width

    @property
    def twice(self) -> float:
        """Both sides."""
        # Two of them.
        return 2 * self.width

    def __len__(self) -> int:
        return 1


def area(box: Box, math: int = 1) -> float:
    """Compute an area.

    Args:
        box: the box.
        math: shadows the module.

    Returns:
        The area.
    """  # noqa: DOC502 - as in life
    # First paragraph,
    # second line.
    #
    # Another paragraph.

    # And a third.
    sizes = [
        1,
        # Inside brackets: code.
        2,
    ]
    # noqa: E501
    def inner(x: int) -> int:
        # Deep down.
        return x  # type: ignore[x]  # kept

    return Box(math).area(box=Counter(sizes))


# From here on: rest.

def rest() -> None:
    """Nothing."""


def bare() -> None:
    return None
'''


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> "dict[str, object]":
    griffe = need("griffe")
    literate = load(ROOT / "renderer" / "literate.py")
    folder = tmp_path_factory.mktemp("sample")
    (folder / "sample.py").write_text(SAMPLE, encoding="utf-8")
    extensions = griffe.load_extensions("dataclasses", literate.LiterateExtension())
    module = griffe.load(
        "sample",
        search_paths=[folder],
        extensions=extensions,
        docstring_parser="google",
    )
    return {"module": module, "literate": literate}


def rows(sample, name, key="rows"):
    obj = sample["module"][name]
    return [(row.prose, row.code, row.indent) for row in obj.extra["literate"][key]]


def test_comments_become_prose_between_pieces_of_code(sample) -> None:
    assert rows(sample, "area") == [
        ("", "def area(box: Box, math: int = 1) -> float:", 0),
        (
            "First paragraph,\nsecond line.\n\nAnother paragraph.\n\nAnd a third.",
            "    sizes = [\n        1,\n        # Inside brackets: code.\n"
            "        2,\n    ]\n\n    def inner(x: int) -> int:",
            4,
        ),
        (
            "Deep down.",
            "        return x  # kept\n\n    return Box(math).area(box=Counter(sizes))",
            8,
        ),
    ]


def test_a_class_shows_its_fields_and_all_that_has_no_heading(sample) -> None:
    assert rows(sample, "Box") == [
        ("", "@dataclass\nclass Box:", 0),
        ("In metres.", "    width: float", 4),
        ("Never negative.", "    def __post_init__(self) -> None:", 4),
        (
            "Check.",
            "        if self.width < 0:\n"
            '            raise ValueError("no")\n\n'
            "    def forward(self) -> float:\n"
            "        return self.width\n\n"
            "    def __len__(self) -> int:\n"
            "        return 1",
            8,
        ),
    ]
    assert rows(sample, "Box.twice") == [
        ("", "@property\ndef twice(self) -> float:", 0),
        ("Two of them.", "    return 2 * self.width", 4),
    ]
    # Told in their class, so they get no heading.
    documented = {
        name for name, obj in sample["module"]["Box"].members.items() if obj.docstring
    }
    assert documented == {"twice"}


def test_constants_bring_their_comment_and_nothing_is_lost(sample) -> None:
    module = sample["module"]
    assert module["LIMIT"].docstring.value == "Why eight? Because $2^3$."
    assert rows(sample, "LIMIT") == [("", "LIMIT = 8", 0)]
    (imports,) = rows(sample, "LIMIT", "lead")
    assert imports[1].startswith("import math\n") and "__all__" not in imports[1]
    assert rows(sample, "Box", "lead") == [
        ("", "_HIDDEN = 3  # no heading, but on the page", 0)
    ]
    assert rows(sample, "rest") == [("", "def rest() -> None:\n    ...", 0)]
    assert module["rest"].extra["literate"]["intro"] == "From here on: rest."
    assert rows(sample, "rest", "lead") == []
    assert rows(sample, "rest", "tail") == [
        ("", "def bare() -> None:\n    return None", 0)
    ]
    # What is imported is told elsewhere.
    assert "Counter" not in module.members


def test_names_link_unless_they_are_bound_or_belong_to_something(sample) -> None:
    row = sample["module"]["area"].extra["literate"]["rows"][0]
    assert row.names == {"Box": "sample.Box", "Counter": "collections.Counter"}
    dot, equals = '<span class="o">.</span>', '<span class="o">=</span>'
    box = '<span class="n">Box</span>'
    assert "<autoref optional identifier=" in row.link(box)
    assert row.link(f"{dot}{box}") == f"{dot}{box}"
    # A keyword is not the object, a variable that is assigned is not either.
    assert row.link(f"{box}{equals}") == f"{box}{equals}"
    assert row.link('<span class="n">math</span>') == '<span class="n">math</span>'


def test_sessions_in_prose_are_fenced(sample) -> None:
    (section,) = sample["module"].docstring.parsed
    assert "\n```pycon\n>>> 1 + 1\n2\n```\n\nThe end." in section.value
    fence = sample["literate"].fence
    assert fence(fence(">>> 1\n1")) == fence(">>> 1\n1")
    assert (
        fence("- item\n\n  >>> 1\n  1\n")
        == "- item\n\n  ```pycon\n  >>> 1\n  1\n  ```\n"
    )


def test_headings_show_how_to_call(sample) -> None:
    assert sample["module"]["area"].extra["literate"]["call"] == "(box, math)"
