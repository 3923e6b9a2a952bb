"""Text from HTML that no browser would be proud of, and bytes in any encoding."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.corpus.extraction import blocks, decode, extract_text, strip_tags

LONG = "It rained all day long, and nobody at all went out of the house."


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("", ""),
        ("plain", "plain"),
        (f"<p>{LONG}", LONG),
        (f"<P CLASS=x>{LONG}</P >", LONG),
        (f"<script>if (a < b) document.write('<p>no')</script><p>{LONG}", LONG),
        (f"<style>p {{ color: red }}</style><p>{LONG}", LONG),
        (f"<!-- <p>no --><p>{LONG}", LONG),
        (f"<p>{LONG}<footer>All rights reserved by the owner of this site.", LONG),
        (f"<p>{LONG.replace('day', '<b>day</b>')}", LONG),
        (f"</div></nav></p><p>{LONG}", LONG),
        (f"<form><p>{LONG}</form>", LONG),
        (f"<p>{LONG.replace(',', '&#44;')}", LONG),
    ],
)
def test_what_a_page_says(html, text):
    assert extract_text(html) == text


def test_program_lines_stay_lines():
    code = "def f(x):\n    return x"
    assert extract_text(f"<p>{LONG}</p><pre>{code}</pre>") == f"{LONG}\n\n{code}"


def test_a_list_of_links_is_no_content():
    menu = "".join(f"<li><a href=/{i}>Go to page number {i} of this</a>" for i in "abc")
    assert extract_text(f"<ul>{menu}</ul><p>{LONG}<ul>{menu}</ul>") == LONG
    assert "Go to page" in strip_tags(f"<ul>{menu}</ul>")


def test_nesting_of_ten_thousand():
    deep = "<div>" * 10_000 + "<b>" * 10_000 + LONG + "</b></div>" * 3
    assert extract_text(deep) == LONG
    assert len(blocks("<ul><li>" * 10_000 + LONG)) == 1


@pytest.mark.parametrize(
    "begin", ["<!--", "<![CDATA[", "<![CDATA[>", "<a ", "<a b='", "</"]
)
def test_what_never_ends_is_read_once(begin):
    """Hours, if the parser looked for each end over all that is left of the page."""
    page = f"<p>{LONG}</p>" + begin * 100_000
    assert extract_text(page).startswith(LONG)


@given(st.text(alphabet="<>/!-ap&;#x \"'=b\n", max_size=60))
def test_any_markup_is_read(html):
    found = " ".join(block.text for block in blocks(html))
    assert isinstance(extract_text(html), str)
    assert len(found) <= len(html) + 1


@given(st.binary(max_size=60), st.text(max_size=12))
def test_any_bytes_are_decoded(data, declared):
    text, _ = decode(data, declared)
    assert isinstance(text, str)


@pytest.mark.parametrize(
    ("data", "declared", "text", "encoding"),
    [
        ("blå".encode(), "utf-8", "blå", "utf-8"),
        ("blå".encode("latin-1"), "utf-8", "blå", "windows-1252"),
        ("“blå”".encode("cp1252"), "iso-8859-1", "“blå”", "windows-1252"),
        ("Привет".encode("koi8-r"), "koi8-r", "Привет", "koi8-r"),
        (b"<meta charset=koi8-r>" + "Я".encode("koi8-r"), "", None, "koi8-r"),
        ("blå".encode("utf-8-sig"), "", "blå", "utf-8-sig"),
        (b"\xe5", "no-such-encoding", "å", "windows-1252"),
        (b"\xe5", "zlib_codec", "å", "windows-1252"),
        (b"\xe5\x81", "rot13", "å\ufffd", "windows-1252"),
    ],
)
def test_encodings_declared_and_true(data, declared, text, encoding):
    found, used = decode(data, declared)
    assert used == encoding
    if text is not None:
        assert found == text


def test_a_link_around_blocks_is_a_link():
    card = f"<a href=/1><h2>A card</h2><p>{LONG}</p></a>"
    assert [block.linked for block in blocks(card)] == [2, 14]
    assert extract_text(f"{card}<p>{LONG}") == LONG


def test_an_open_link_ends_with_its_block():
    assert [b.linked for b in blocks(f"<p><a href=/1>Go</p><p>{LONG}")] == [1, 0]


def test_conditions_of_word_are_tags():
    page = f"<p>{LONG}<![if !supportLists]>one<![endif]><p>two"
    assert strip_tags(page) == f"{LONG} one\ntwo"
