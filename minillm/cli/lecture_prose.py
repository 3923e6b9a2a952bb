r"""The prose of a lecture: from a docstring to sentences of Markdown for a terminal.

The course does not explain this module: it serves [`minillm.cli.lecture_script`][].
"""

import re

from minillm.cli.lecture_formulas import readable

__all__ = ["plain", "sentences"]

# Characters of a sentence that does not stand alone.
FEW = 25
ALIGNED = r"\begin{aligned}"


def formula(match: re.Match[str]) -> str:
    """Write a formula for a terminal.

    Args:
        match: a formula between dollars, or code, which is left alone.

    Returns:
        Markdown: code, and of a formula on lines of its own a block of code.
    """
    if not match[2]:
        return match[0]
    if match[1] == "$":
        return f"`{readable(match[2])}`"
    if match[2].startswith(ALIGNED):
        text = match[2].removeprefix(ALIGNED).partition(r"\end")[0]
        lines = text.replace("&", "").split("\\\\")
    else:
        lines = re.split(r"\\q?quad(?=\\Long| *\(?[^ (]* ?[=\\])|\\qquad", match[2])
    shown = "\n".join(filter(None, map(readable, lines)))
    return f"\n\n```text\n{shown}\n```\n\n"


def plain(text: str) -> str:
    r"""Write the prose of a docstring as Markdown for a terminal.

    Args:
        text: prose as it stands in a docstring.

    Returns:
        Markdown: formulas are code.

    Examples:
        >>> print(plain("Of $d_{ff} = 4$, `$d$` is left alone."))
        Of `d_ff = 4`, `$d$` is left alone.
    """
    text = re.sub(r"`[^`]*`|(\$\$?)(?!\s)(.+?)\1", formula, text, flags=re.S)
    return text.strip("\n")


def sentences(paragraph: str) -> list[str]:
    """Cut a paragraph into what is said in one breath.

    Args:
        paragraph: Markdown.

    Returns:
        Its sentences, each in one line. A title in front of the first, in bold or
        italics, stays with it, a remark in parentheses with the one before, and a few
        words ("One thing is new.") with what they announce or, at the end, conclude.

    Examples:
        >>> sentences("**Why.** Gage (1994) wrote it. Xu et al. (2020) did. (Not all.)")
        ['**Why.** Gage (1994) wrote it.', 'Xu et al. (2020) did. (Not all.)']
    """
    text = " ".join(paragraph.split())
    end = r"(?:(?<=[.?!])|(?<=[.?!][)\"]))(?<!\bal\.)(?<!\bvs\.)(?<!\be\.g\.)"
    cut = re.split(end + r" (?=[A-Z0-9*`\"])", text)
    found: list[str] = []
    for sentence in cut:
        last = found[-1] if found else ""
        few = found and len(last) < FEW
        if few or last.count("(") > last.count(")"):
            found[-1] += f" {sentence}"
        else:
            found.append(sentence)
    if len(found) > 1 and len(found[-1]) < FEW:
        found[-2:] = [" ".join(found[-2:])]
    return found
