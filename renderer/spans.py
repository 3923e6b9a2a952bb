r"""A Markdown extension: a code span keeps the spaces that belong to the code.

A pattern such as ` ?\w+` begins with a space, and without it the pattern is invalid.
Python-Markdown strips both ends of a code span, and a browser shows a run of spaces as
one. Here a span follows CommonMark (section 6.1): a line break is a space; if there is
a space at both ends, one of each is dropped, unless there is nothing else. A span
whose spaces a browser would lose gets the class `spaced`, for which the style sheet
keeps them.

In a table `\|` is a bar, also in code: without the backslash it would end the cell.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element

from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor
from markdown.treeprocessors import Treeprocessor
from markdown.util import AtomicString, code_escape

if TYPE_CHECKING:
    from markdown import Markdown

# As many backticks behind the code as before it, and escaped ones are none.
SPAN = r"(?<![\\`])(`+)(?!`)(.+?)(?<!`)\1(?!`)"


def content(code: str) -> str:
    r"""Find what a code span shows.

    Args:
        code: what stands between the backticks.

    Returns:
        The code.

    Examples:
        >>> content(r" ?\p{L}+"), content(" `x` "), content("a\n  b"), content("  ")
        (' ?\\p{L}+', '`x`', 'a b', '  ')
    """
    code = re.sub(r" *\n *", " ", code)
    if code[0] == code[-1] == " " and code.strip():
        return code[1:-1]
    return code


class CodeSpan(InlineProcessor):
    """Turn a code span into an element."""

    def handleMatch(self, match: re.Match[str], data: str) -> tuple[Element, int, int]:
        """Build the element.

        Args:
            match: the span.
            data: the text around it.

        Returns:
            The element, and where the span begins and ends.
        """
        code = content(match[2])
        element = Element("code")
        element.text = AtomicString(code_escape(code))
        if code != " ".join(code.split()):
            element.set("class", "spaced")
        return element, match.start(), match.end()


class Cells(Treeprocessor):
    """Turn the escaped bars of a table into bars."""

    def run(self, root: Element) -> None:
        """Look at each cell, before its code is found.

        Args:
            root: the page.
        """
        for row in root.iter("tr"):
            for cell in row:
                cell.text = (cell.text or "").replace(r"\|", "|")


class CodeSpans(Extension):
    """Put our code spans in the place of Python-Markdown's."""

    def extendMarkdown(self, md: Markdown) -> None:
        """Register the processors.

        Args:
            md: the converter.
        """
        md.inlinePatterns.register(CodeSpan(SPAN, md), "backtick", 190)
        # Python-Markdown looks for what is within a line with a priority of 20.
        md.treeprocessors.register(Cells(md), "cells", 25)


def makeExtension(**kwargs: Any) -> CodeSpans:
    """Build the extension, as Python-Markdown asks for it.

    Args:
        **kwargs: its options; there are none.

    Returns:
        The extension.
    """
    return CodeSpans(**kwargs)
