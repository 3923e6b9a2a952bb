"""The one MkDocs hook: each chapter's page offers the chapter as a notebook.

A search also finds chapters before the pages behind them. A renderer without hooks
builds the same pages without that line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mkdocs.structure.files import File

from minillm.cli.chapter_parts import chapters
from minillm.cli.notebook_cells import notebook

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

# Ends the paragraph with which the page of a chapter begins.
GOALS = "{ .goals }\n"


def address(chapter: str) -> str:
    """Say where a notebook lies in the site."""
    return f"notebooks/{chapter}.ipynb"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the notebooks to what is published.

    Args:
        files: the files of the site.
        config: the settings of the site.

    Returns:
        The files with one notebook for each chapter.
    """
    for chapter in chapters().values():
        text = notebook(chapter)
        files.append(File.generated(config, address(chapter), content=text))
    return files


def on_page_markdown(
    markdown: str, page: Page, config: MkDocsConfig, files: Files
) -> str:
    """Offer the notebook below the goals of a chapter, and let it be found first.

    Args:
        markdown: the text of a page.
        page: the page.
        config: the settings of the site.
        files: the files of the site.

    Returns:
        The text, with a line more if the page is that of a chapter.

    Raises:
        ValueError: if the page of a chapter has no goals.
    """
    chapter = page.file.src_uri.removesuffix(".md")
    if chapter not in chapters().values():
        return markdown
    if GOALS not in markdown:
        raise ValueError(f"docs/{chapter}.md has no paragraph of goals")
    page.meta["search"] = {"boost": 3}
    # Without a name of its own, the file would be called "download".
    offer = f'{{ download="{chapter}.ipynb" }}'
    link = f"[This chapter as a notebook]({address(chapter)}){offer}"
    return markdown.replace(GOALS, f"{GOALS}\n{link}\n{{ .notebook }}\n", 1)
