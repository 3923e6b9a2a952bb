"""Which characters do the engines of regular expressions see differently?

    python -m benchmarks.unicode_tables

The pre-tokenizers ask whether a character is a letter, a digit, a mark or a space. Each
engine answers from its own table of Unicode, and the tables are of different years.
Most code points that differ are characters of the last years, which the older table
does not know. The last column lists those that both know and put into different kinds.
"""

import unicodedata

import regex
import tiktoken
import tokenizers

KINDS = (r"\p{L}", r"\p{N}", r"\p{M}", r"\s", r"\p{Lu}", r"\p{Ll}")


def members(kind: str) -> dict[str, set[str]]:
    """For each engine, the characters that are of a kind."""
    characters = [chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000]
    single_bytes = {bytes([byte]): byte for byte in range(256)}
    encoding = tiktoken.Encoding(
        "kind", pat_str=kind, mergeable_ranks=single_bytes, special_tokens={}
    )
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(kind), "removed")
    find = regex.compile(kind).match
    return {
        "regex": {c for c in characters if find(c)},
        "tiktoken": {c for c in characters if encoding.encode_ordinary(c)},
        "tokenizers": {c for c in characters if not split.pre_tokenize_str(c)},
    }


def ranges(characters: set[str]) -> str:
    """Write code points as ranges, the first few of them."""
    found: list[list[int]] = []
    for code in sorted(map(ord, characters)):
        if found and found[-1][1] == code - 1:
            found[-1][1] = code
        else:
            found.append([code, code])
    shown = [f"{a:04X}" if a == b else f"{a:04X}-{b:04X}" for a, b in found[:6]]
    return " ".join(shown) + (" ..." if len(found) > 6 else "")


def main() -> None:
    """Print where each engine differs from `regex`."""
    print(f"Unicode of this Python: {unicodedata.unidata_version}")
    unassigned = members(r"\p{Cn}")
    for kind in KINDS:
        by_engine = members(kind)
        ours = by_engine.pop("regex")
        for engine, theirs in by_engine.items():
            differ = ours ^ theirs
            moved = differ - unassigned["regex"] - unassigned[engine]
            print(
                f"{kind:7} {engine:11} {len(differ):6} differ  {ranges(differ)}\n"
                f"{'':19} {len(moved):6} moved   {ranges(moved)}"
            )


if __name__ == "__main__":
    main()
