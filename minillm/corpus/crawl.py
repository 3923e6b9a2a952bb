r"""A dirty crawl whose truth is known.

A real crawl is large, belongs to others, and nobody can say which of its pages are
copies of which. This one is built by a program from the tales that the course ships:
the same seed gives the same bytes. Beside each page lies its truth, so that every
decision of a cleaner can be counted as right or wrong.

>>> pages = crawl()
>>> len(pages), sum(len(page.html) for page in pages) // 1_000_000
(985, 5)

**The dirt is made, and these are the rules.** The last tenth of the tales is the test
split ([`minillm.data.split`][]); the rest is for training.

| kind | how it is made |
| --- | --- |
| `tale` | a tale for training, cut into pages of at most 12,000 characters |
| `mirror` | the same text on another site, in another template |
| `near` | another title, and one word replaced, or 0.5, 2, 5 or 10 % |
| `quote` | one paragraph of a tale among a reader's own words |
| `leak` | five of the ten test tales, three times, up to 2 % replaced |
| `part` | two paragraphs of the same five tales, among a reader's own words |
| `bulletin` | prose of another domain, from eight patterns of sentences |
| the rest | what is not prose, by the rules of [`minillm.corpus.dirt`][] |

How often a page is copied is drawn from a distribution with a heavy tail, as on the
web: most have no copy, a few have up to twelve. Around each text stands the template of
its site, with a menu, a footer, a cookie notice, links, scripts and unclosed tags. One
site in five declares an encoding that it does not use.
"""

import html
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from random import Random

from minillm.corpus import dirt
from minillm.data import andersen, split

__all__ = ["Page", "crawl", "leaked_tales", "unseen_tales"]

LONGEST = 12_000
EDITS = (0.0, 0.005, 0.02, 0.05, 0.1)

# What is not a tale: its kind, the rule that writes it, and how many pages of it.
OTHERS = (
    ("bulletin", dirt.bulletin, 120),
    ("spam", dirt.spam, 120),
    ("table", dirt.table, 40),
    ("links", dirt.links, 50),
    ("code", dirt.code, 30),
    ("licence", dirt.licence, 40),
    ("repeats", dirt.repeats, 30),
    ("foreign", dirt.foreign, 30),
)
SITES = ("tales", "library", "mirror", "fireside", "archive")


@dataclass(frozen=True)
class Page:
    """A page of the crawl, and the truth about it.

    Attributes:
        url: its address.
        html: what the server sent.
        declared: the encoding that the server named.
        kind: how it was made, as in the table above.
        source: the index of the tale that it comes from, in `andersen()`; `None` if it
            comes from no tale.
        text: its content, without the template; what an extraction should find.
        original: which pages have the same original: the number of the tale's page;
            -1 if it comes from no tale or only quotes one.
        edited: the share of the original's words that were replaced.
    """

    url: str
    html: bytes
    declared: str
    kind: str
    source: int | None
    text: str
    original: int
    edited: float


def _pages_of(tale: str) -> list[str]:
    """Cut a tale into texts of at most `LONGEST` characters, between paragraphs."""
    pages, held = [], ""
    for paragraph in tale.split("\n\n"):
        # A title alone makes no page, however long the first paragraph.
        if len(held) > 100 and len(held) + len(paragraph) > LONGEST:
            pages.append(held)
            held = ""
        held = f"{held}\n\n{paragraph}" if held else paragraph
    return [*pages, held]


def _edit(random: Random, text: str, share: float) -> str:
    """Replace a share of the words by others of the same text, at least one."""
    parts = re.split(r"(\s+)", text)
    places = range(0, len(parts), 2)
    count = max(1, round(share * len(places)))
    for place in random.sample(places, min(count, len(places))):
        parts[place] = parts[random.choice(places)]
    return "".join(parts)


def _menu(random: Random, n: int) -> str:
    words = ("Home", "News", "Shop", "About", "Contact", "Forum", "Links", "Sitemap")
    return "".join(
        f'<li><a href="/{w.lower()}">{w}</a>' for w in random.sample(words, n)
    )


def _frame(random: Random, site: str, title: str, body: str, charset: str) -> str:
    """Put a site's template around a body: five sites, five habits, all untidy."""
    head = (
        f"<!DOCTYPE html><html><head><meta charset={charset}><title>{title}</title>"
        "<script>var ad = '<p>Not text at all, but a script that looks like it.</p>'"
        "</script><style>p { margin: 1em }</style></head><body>"
    )
    cookies = (
        "<div class=cookies><p>We use cookies to give you the best experience on this "
        "site. By staying here you accept them. <button>Accept</button></p></div>"
    )
    foot = (
        "<footer><p>Copyright 1999 to 2025 by the owners of this site. All rights "
        "reserved. <a href=/terms>Terms</a> | <a href=/privacy>Privacy</a></footer>"
    )
    more = "".join(
        f'<li><a href="/{n}">Read this too: story number {n}</a></li>'
        for n in random.sample(range(1000), 8)
    )
    if site == "tales":
        return f"{head}<nav><ul>{_menu(random, 6)}</ul></nav>{body}{foot}</body></html>"
    if site == "library":
        menu = " | ".join(f"<a href=/{x}>Shelf {x}</a>" for x in "ABCDEFGHIJKLMNOP")
        return f"{head}{cookies}<div id=top>{menu}</div><div>{body}</div></div>{foot}"
    if site == "mirror":
        return f"{head}<table><tr><td>{body}<td><ul>{more}</ul></table><hr>{foot}"
    if site == "fireside":
        praise = ("Lovely!", "Thanks for this.", "First!", "Again!")
        remarks = "".join(
            f"<div class=comment><b>guest{random.randrange(900)}</b> wrote:<p>"
            f"{random.choice(praise)}</div>"
            for _ in range(5)
        )
        return f"{head}<header><h2>Fireside</h2></header>{body}{remarks}{cookies}"
    share = "<div>Share this page: <a href=#>Mail</a> <a href=#>Print</a></div>"
    return f"{head}<!-- ad --><aside>{more}</aside>{share}<main>{body}</main>{foot}"


def _body(kind: str, text: str) -> str:
    if kind == "table":
        rows = (row.split(" | ") for row in text.splitlines())
        cells = ("<tr>" + "".join(f"<td>{cell}" for cell in row) for row in rows)
        return f"<table>{''.join(cells)}</table>"
    if kind == "links":
        items = (f"<li><a href=/x>{line}</a>" for line in text.splitlines())
        return f"<ul>{''.join(items)}</ul>"
    if kind == "code":
        return f"<pre>{html.escape(text)}</pre>"
    if kind == "repeats":
        return "".join(f"<div>{line}</div>" for line in text.splitlines())
    title, *paragraphs = text.split("\n\n")
    tag = "h1" if len(title) < 100 else "p"
    # Browsers forgive a paragraph that is never closed, and so must we.
    rest = "".join(f"<p>{html.escape(p, quote=False)}" for p in paragraphs)
    return f"<{tag}>{html.escape(title, quote=False)}</{tag}>{rest}"


class _Builder:
    """Collects pages; all that is random comes from one generator."""

    def __init__(self, seed: int) -> None:
        self.random, self.pages, self.count = Random(seed), list[Page](), Counter[str]()

    def add(
        self,
        kind: str,
        text: str,
        source: int | None = None,
        original: int = -1,
        edited: float = 0.0,
    ) -> None:
        site = "tales" if kind == "tale" else self.random.choice(SITES[1:])
        self.count[site] += 1
        # The archive says UTF-8 and sends Latin-1; so it was when it was built.
        encoding = "latin-1" if site in {"archive", "mirror"} else "utf-8"
        charset = "iso-8859-1" if site == "mirror" else "utf-8"
        title = text.split("\n")[0][:60]
        page = _frame(self.random, site, title, _body(kind, text), charset)
        self.pages.append(
            Page(
                f"http://{site}.example/{self.count[site]}",
                page.encode(encoding, errors="xmlcharrefreplace"),
                charset,
                kind,
                source,
                text,
                original,
                edited,
            )
        )

    def copies(self, text: str, source: int, original: int) -> None:
        # For half of all $u$ in (0, 1), $u^{-0.9} - 1$ is below 1; for few, above 12.
        n = min(12, int(max(self.random.random(), 1e-9) ** -0.9) - 1)
        for _ in range(n):
            if self.random.random() < 0.4:
                self.add("mirror", text, source, original)
                continue
            share = self.random.choice(EDITS)
            title, _, rest = text.partition("\n\n")
            if rest and len(title) < 100:
                title = f"{title.title()}, an old tale"
            new = _edit(self.random, f"{title}\n\n{rest}".rstrip(), share)
            self.add("near", new, source, original, share)

    def quote(self, kind: str, tale: str, source: int, n: int) -> None:
        paragraphs = [p for p in tale.split("\n\n") if len(p) > 300] or [tale]
        start = self.random.randrange(max(1, len(paragraphs) - n + 1))
        quoted = paragraphs[start : start + n]
        before, after = dirt.blog(self.random), dirt.blog(self.random)
        self.add(kind, "\n\n".join([before, *quoted, after]), source)


@cache
def crawl(seed: int = 0) -> tuple[Page, ...]:
    """Build the crawl.

    Args:
        seed: the same seed gives the same pages.

    Returns:
        The pages, in random order.

    Examples:
        >>> Counter(page.kind for page in crawl())["leak"]
        24
    """
    training, _ = split(andersen())
    build, original = _Builder(seed), 0
    for source, tale in enumerate(training):
        for text in _pages_of(tale):
            build.add("tale", text, source, original)
            build.copies(text, source, original)
            original += 1
    for _ in range(60):
        source = build.random.randrange(len(training))
        build.quote("quote", training[source], source, 1)
    for i, tale in enumerate(leaked_tales()):
        source = len(training) + 2 * i
        for text in _pages_of(tale):
            for share in EDITS[:3]:
                new = _edit(build.random, text, share) if share else text
                build.add("leak", new, source, original, share)
            original += 1
        for _ in range(2):
            build.quote("part", tale, source, 2)
    for kind, write, n in OTHERS:
        for _ in range(n):
            build.add(kind, write(build.random))
    build.random.shuffle(build.pages)
    return tuple(build.pages)


def leaked_tales() -> list[str]:
    """Give every second tale of the test split: those that leak into the crawl.

    Returns:
        Five tales.
    """
    return split(andersen())[1][::2]


def unseen_tales() -> list[str]:
    """Give the tales of the test split of which no page of the crawl has anything.

    Returns:
        Five tales.

    Examples:
        >>> len(leaked_tales()), len(unseen_tales())
        (5, 5)
        >>> sources = {page.source for page in crawl()}
        >>> tales = andersen()
        >>> any(tales.index(tale) in sources for tale in unseen_tales())
        False
    """
    return split(andersen())[1][1::2]
