r"""The prose of a notebook: from a docstring to Markdown with formulas and figures.

The course does not explain this module: it serves [`minillm.cli.notebook_cells`][].
"""

import base64
import re
import textwrap

from minillm.files.reading import IMAGES

__all__ = ["markdown"]

# A figure, or a table that was written by a program.
SNIPPET = re.compile(r'^ *--8<-- "images/(.+?)"$', re.MULTILINE)


def markdown(text: str) -> str:
    r"""Write the prose of a docstring as Markdown for a notebook.

    Args:
        text: prose as it stands in a docstring.

    Returns:
        Markdown: formulas stay as they are, figures are inside the text, and headings
        are one level deeper, since the title is the first.

    Examples:
        >>> print(markdown("# Ends\n\nSee $a \\to b$."))
        ## Ends
        <BLANKLINE>
        See $a \to b$.
    """
    text = SNIPPET.sub(_snippet, sections(text))
    fenced, lines = False, []
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        lines.append(f"#{line}" if line.startswith("#") and not fenced else line)
    return "\n".join(lines).strip()


def _snippet(match: re.Match[str]) -> str:
    path = IMAGES / match[1]
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8").strip()
    svg = path.read_bytes()
    label = re.search(rb'aria-label="(.*?)"', svg)
    said = label[1].decode() if label else path.stem
    data = base64.b64encode(svg).decode()
    return f'<img alt="{said}" src="data:image/svg+xml;base64,{data}">'


def sections(text: str) -> str:
    r"""Write the sections of a docstring as Markdown.

    Args:
        text: prose as it stands in a docstring.

    Returns:
        The same, with a list in the place of each section such as `Args:`.

    Examples:
        >>> print(sections("Halve it.\n\nRaises:\n    ValueError: if odd."))
        Halve it.
        <BLANKLINE>
        **Raises**
        <BLANKLINE>
        - `ValueError`: if odd.
    """
    lines, title = [], ""
    for line in textwrap.dedent(text).splitlines():
        if match := re.fullmatch(r"(Args|Returns|Raises|Yields|Attributes):", line):
            title = {"Args": "Arguments"}.get(match[1], match[1])
            lines += [f"**{title}**", ""]
        elif line.strip() and not line.startswith(" "):
            title = ""
            lines.append(line)
        elif title in {"Arguments", "Raises", "Attributes"}:
            lines.append(re.sub(r"^    (\*{0,2}[\w.]+): ", r"- `\1`: ", line))
        else:
            lines.append(line.removeprefix("    ") if title else line)
    return textwrap.dedent("\n".join(lines))
