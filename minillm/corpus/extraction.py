r"""Text from HTML: the parser is a library's, the decision what is content ours.

Python's own `html.parser` reads the tags, in one pass and without recursion, so markup
nested ten thousand deep costs it nothing. What it cannot say is which of the text is
the page and which is the frame around it. That is decided for each *block*, the text
between two tags that begin a new line, by numbers that need no understanding
(Kohlschütter, Fankhauser & Nejdl 2010, *Boilerplate detection using shallow text
features*): how many words it has, and how many of them are links.

>>> page = "<ul><li><a href=/>Home</a></ul><p>" + "It was a cold day. " * 4
>>> [(block.tag, block.words, block.linked) for block in blocks(page)]
[('li', 1, 1), ('p', 20, 0)]
>>> extract_text(page)[:18]
'It was a cold day.'

**The order of the bytes before the text.** A server names an encoding, the page names
another, and both may be wrong. [`decode`][minillm.corpus.extraction.decode] tries UTF-8
first: text that is not UTF-8 almost never looks like it.

**Told in** [`minillm.curation`][].
"""

import codecs
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html.parser import HTMLParser

__all__ = [
    "Block",
    "blocks",
    "decode",
    "extract_text",
    "precision_recall",
    "strip_tags",
]


def _names(line: str) -> frozenset[str]:
    return frozenset(line.split())


# Text inside these is never shown, or is what the page itself calls a frame.
HIDDEN = _names("script style noscript template title button select svg")
FRAME = _names("nav footer header aside")
# These begin a new line. Anything else, like `<a>` or `<b>`, stands inside one.
LINES = _names(
    "address article aside blockquote body br center dd div dl dt fieldset figure "
    "footer form h1 h2 h3 h4 h5 h6 header hr html li main nav ol p pre section table "
    "tbody td th thead tr ul"
)
MANY_WORDS, MOSTLY_LINKS = 10, 1 / 3


@dataclass
class Block:
    """The text between two tags that begin a line.

    Attributes:
        tag: the last such tag before it.
        text: with single spaces, but for lines of `<pre>`.
        words: how many words it has.
        linked: how many of them stand in a link.
        frame: whether it stands inside what the page itself marks as its frame.
    """

    tag: str
    text: str
    words: int
    linked: int
    frame: bool


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[Block] = []
        self.parts: list[str] = []
        self.linked, self.in_link, self.tag = 0, False, ""
        self.in_blocks = 0  # how many were begun inside of the link, and are open
        # How deep the parser stands in each kind of element; a stack would grow with
        # the nesting, and unclosed tags would never leave it.
        self.hidden, self.frame = 0, 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in LINES:
            self.end_block()
            self.tag = tag
            self.in_blocks += tag not in {"br", "hr"}
        if tag in HIDDEN:
            self.hidden += 1
        elif tag in FRAME:
            self.frame += 1
        elif tag == "a":
            self.in_link, self.in_blocks = True, 0

    def handle_endtag(self, tag: str) -> None:
        if tag in LINES:
            self.end_block()
            # A link left open ends with what it stands in.
            self.in_link, self.in_blocks = (
                self.in_link and self.in_blocks > 0,
                max(0, self.in_blocks - 1),
            )
            # What follows stands in whatever is around it: nothing that we remember.
            self.tag = ""
        if tag in HIDDEN:
            self.hidden = max(0, self.hidden - 1)
        elif tag in FRAME:
            self.frame = max(0, self.frame - 1)
        elif tag == "a":
            self.in_link = False

    def handle_data(self, data: str) -> None:
        if self.hidden:
            return
        self.parts.append(data)
        if self.in_link:
            self.linked += len(data.split())

    def end_block(self) -> None:
        text = "".join(self.parts)
        # The lines of a program are its own; all others are the browser's business.
        text = text.strip("\n") if self.tag == "pre" else " ".join(text.split())
        if text.strip():
            n = len(text.split())
            block = Block(self.tag, text, n, min(self.linked, n), self.frame > 0)
            self.found.append(block)
        self.parts, self.linked = [], 0


def _close(html: str) -> str:
    """Make text of what begins like markup and never ends."""
    # The parser looks for the end of each anew, over all that is left of the page; a
    # page of nothing else would take hours.
    # Word's `<![if !vml]>` is a tag, and no section that a `]]>` would end.
    html = re.sub(r"<!\[(?!CDATA\[)[^\[\]<>]*\]>", " ", html)
    for begin, end in (("<!--", "-->"), ("<![", "]]>"), ("<", ">")):
        whole, ends, rest = html.rpartition(end)
        html = whole + ends + rest.replace(begin, "&lt;" + begin[1:])
    return html


def blocks(html: str) -> list[Block]:
    r"""Cut a page into blocks.

    Args:
        html: the page, however broken.

    Returns:
        Every block that has text, in the order of the page.

    Examples:
        Nothing needs to be closed, and entities are resolved:

        >>> [block.text for block in blocks("<p>One &amp; two<p>Three<div>Four")]
        ['One & two', 'Three', 'Four']
        >>> blocks("<div>" * 10_000 + "deep")[0].text
        'deep'
    """
    reader = _Reader()
    reader.feed(_close(html))
    reader.close()
    reader.end_block()
    return reader.found


def strip_tags(html: str) -> str:
    r"""Take the tags away and keep all text: the naive way.

    Args:
        html: the page.

    Returns:
        The blocks, a line each.

    Examples:
        >>> strip_tags("<nav><a href=/>Home</a></nav><p>It rained.")
        'Home\nIt rained.'
    """
    return "\n".join(block.text for block in blocks(html))


def extract_text(html: str) -> str:
    r"""Take the content out of a page and leave its frame.

    A block is content if it has many words and few of them are links. A short one, like
    an answer in a dialogue, is content if it stands between two such, and a heading if
    one follows.

    Args:
        html: the page, however broken.

    Returns:
        The blocks that are content, with a blank line between two. A frame that is
        never closed, such as a `<nav>`, takes all that follows with it.

    Examples:
        >>> page = '''<nav><a href=/>Home</a></nav><h1>RAIN</h1>
        ... <p>It rained all day long, and nobody at all went out.
        ... <p>"Why?"
        ... <p>"Because it rains," said the cat, who did not like to.
        ... <p>Share <footer>All rights reserved by the owners of this page.</footer>'''
        >>> print(extract_text(page))
        RAIN
        <BLANKLINE>
        It rained all day long, and nobody at all went out.
        <BLANKLINE>
        "Why?"
        <BLANKLINE>
        "Because it rains," said the cat, who did not like to.
    """
    candidates = [
        block
        for block in blocks(html)
        if not block.frame and block.linked <= MOSTLY_LINKS * block.words
    ]
    good = [block.words >= MANY_WORDS or block.tag == "pre" for block in candidates]
    if not any(good):
        # Nothing but short lines: a table, a list. Later steps shall judge it.
        return "\n".join(block.text for block in candidates)
    first, last = good.index(True), len(good) - good[::-1].index(True)
    while first and candidates[first - 1].tag in {"h1", "h2", "h3", "h4"}:
        first -= 1
    return "\n\n".join(block.text for block in candidates[first:last])


_CHARSET = re.compile(rb"charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]{1,40})")


def decode(data: bytes, declared: str = "") -> tuple[str, str]:
    r"""Turn bytes into text, whatever encoding was named.

    Args:
        data: what the server sent.
        declared: the encoding that it named, or nothing.

    Returns:
        The text, and the encoding that was used. Bytes without a meaning in it become
        `U+FFFD`.

    Examples:
        A page that says UTF-8 and is not:

        >>> decode("blå".encode("latin-1"), "utf-8")
        ('blå', 'windows-1252')
        >>> decode("blå".encode(), "latin-1")
        ('blå', 'utf-8')
        >>> decode(b"\xff\xfe" + "blå".encode("utf-16-le"))
        ('blå', 'utf-16')
    """
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if data.startswith(mark):
            return data.decode(name, errors="replace"), name
    try:
        return data.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        pass
    inside = _CHARSET.search(data[:4096])
    named: Sequence[str] = (declared, inside[1].decode() if inside else "")
    for name in named:
        try:
            codec = codecs.lookup(name).name
            # Python also has codecs that are no encodings of text.
            if codec not in {"utf-8", "ascii", "iso8859-1"}:
                return data.decode(codec), codec
        except (LookupError, UnicodeDecodeError, ValueError):
            continue
    # Browsers read Latin-1 as this superset, by their standard.
    return data.decode("windows-1252", errors="replace"), "windows-1252"


def precision_recall(found: str, true: str) -> tuple[int, int, int]:
    """Compare an extraction with the truth, word by word.

    Args:
        found: the text that was found.
        true: the text that should have been.

    Returns:
        How many words both have, counted as often as they occur in both; how many were
        found; how many are true. The first over the second is the precision, over the
        third the recall.

    Examples:
        >>> precision_recall("Home once upon a time", "once upon a time there")
        (4, 5, 5)
    """
    a, b = Counter(found.split()), Counter(true.split())
    return (a & b).total(), a.total(), b.total()
