r"""Formulas on a terminal: the course's TeX as one line of characters.

Unicode has most signs of a formula, some raised and lowered letters, and no fractions.
So a fraction becomes a division, in parentheses where it needs them, and an index that
Unicode cannot lower keeps its underscore:

>>> print(readable(r"\frac{e^{x_i}}{\sum_j e^{x_j}}"))
e^(xᵢ) / Σⱼ e^(xⱼ)
>>> print(readable(r"x_i / \sqrt{\frac1d \sum_j x_j^2 + \epsilon}"))
xᵢ / √(1/d Σⱼ xⱼ² + ε)
>>> print(readable(r"2BTd\,d_{ff} \cdot 10^{-7}"))
2BTd d_ff · 10⁻⁷

The course does not explain this module. The general converters that were tried drop
the parentheses of a fraction, or leave it as TeX.
"""

import re
import unicodedata
from collections.abc import Iterator

__all__ = ["readable"]

SIGNS = {
    "times": " × ", "cdot": " · ", "odot": " ⊙ ", "pm": " ± ", "to": " → ",
    "leftarrow": " ← ", "Longleftrightarrow": " ⟺ ", "mapsto": " ↦ ",
    "approx": " ≈ ", "sim": " ~ ", "propto": " ∝ ", "prime": "′", "top": "ᵀ",
    "le": " ≤ ", "ge": " ≥ ", "ll": " ≪ ", "gg": " ≫ ", "ne": " ≠ ", "equiv": " ≡ ",
    "in": " ∈ ", "cup": " ∪ ", "cap": " ∩ ", "mid": " | ", "succ": " ≻ ",
    "bmod": " mod ",
    "infty": "∞", "dots": "… ", "ldots": "… ", "cdots": "… ", "sum": " Σ", "prod": " Π",
    "int": " ∫", "partial": "∂", "nabla": "∇", "ell": "ℓ", "lfloor": "⌊",
    "rfloor": "⌋", "lceil": "⌈", "rceil": "⌉", "langle": "⟨", "rangle": "⟩",
    "lVert": "‖", "rVert": "‖",
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "eta": "η",
    "theta": "θ", "kappa": "κ", "lambda": "λ", "mu": "μ", "pi": "π", "rho": "ρ",
    "sigma": "σ", "tau": "τ", "phi": "φ", "chi": "χ", "omega": "ω", "Delta": "Δ",
    "quad": "  ", "qquad": "   ", ",": " ", ";": " ", ":": " ", " ": " ", "!": "",
    "big": "", "Big": "", "bigl": "", "bigr": "", "Bigl": "", "Bigr": "", "left": "",
    "right": "", "{": "{", "}": "}", "|": "‖", "%": "%", "_": "_", "$": "$", "\\": "; ",
}  # fmt: skip
FUNCTIONS = {"ln", "log", "exp", "max", "min", "sin", "cos", "tanh", "det", "arg"}
PLAIN = {
    "operatorname", "text", "mathrm", "mathbf", "mathbb", "mathcal", "mathit",
    "textstyle",
}  # fmt: skip
MARKS = {"bar": "\u0304", "hat": "\u0302", "tilde": "\u0303", "dot": "\u0307"}
RAISED = dict(
    zip("0123456789+-=()nixkrbTdmj", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱˣᵏʳᵇᵀᵈᵐʲ", strict=True)
)
LOWERED = dict(
    zip("0123456789+-=()aeijkmnoprtuvx", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑᵢⱼₖₘₙₒₚᵣₜᵤᵥₓ", strict=True)
)
TOKEN = re.compile(r"\\[a-zA-Z]+|\\.|\s+|.", re.DOTALL)
# A fraction stands between two signs of its own until its neighbours are known.
OPEN, CLOSE = "\ue000", "\ue001"
FRACTION = re.compile(f"(.?)( ?){OPEN}([^{OPEN}{CLOSE}]*){CLOSE}(?= ?(.?))", re.DOTALL)

TIDY = (
    (r" ?= ?", " = "),
    (r"([∂∇(\[]) ", r"\1"),
    (r" ([)\],.;])", r"\1"),
    (r"(^|[=(,\[←] ?)- (?=\S)", r"\1-"),
    (r"\b(ln|log|exp|max|min|sin|cos) \(", r"\1("),
)


def readable(tex: str) -> str:
    r"""Write a formula in one line.

    Args:
        tex: the formula, without its dollars.

    Returns:
        Text without a backslash, if the formula has only what the course uses.

    Examples:
        >>> print(readable(r"\bar x = \sum_y \bar y \, \frac{\partial y}{\partial x}"))
        x̄ = Σ_y ȳ ∂y/∂x
        >>> print(readable(r"\frac{f(w + \epsilon) - f(w)}{2\epsilon}"))
        (f(w + ε) - f(w)) / 2ε
    """
    text = re.sub(r"\s+", " ", _sequence(iter(TOKEN.findall(tex)), "")).strip()
    for pattern, better in TIDY:
        text = re.sub(pattern, better, text)
    while OPEN in text:
        text = FRACTION.sub(_placed, text)
    return unicodedata.normalize("NFC", text)


def _placed(match: re.Match[str]) -> str:
    """A fraction, in parentheses where a neighbour would be taken for a part of it."""
    before, gap, inside, after = match.groups()
    free = before in {"", *"=+,([{←⟺≈≤≥"} and after in {"", *"=+,)]}.:⟺≈≤≥-"}
    return before + gap + (inside if free else f"({inside})")


def _sequence(tokens: Iterator[str], end: str) -> str:
    """Everything up to an end, which is taken as well."""
    parts: list[str] = []
    for token in tokens:
        if token == end:
            break
        if token in {"_", "^"}:
            # TeX ignores spaces before an index.
            while parts and parts[-1].isspace():
                parts.pop()
            parts.append(_script(token, _argument(tokens)))
        else:
            parts.append(_one(token, tokens))
    return "".join(parts)


def _one(token: str, tokens: Iterator[str]) -> str:
    """One token, with its arguments if it has any."""
    name = token[1:].strip() if token.startswith("\\") and len(token) > 1 else ""
    if token == "{":
        return _sequence(tokens, "}")
    if not name:
        return {"&": ", ", "'": "′"}.get(token, " " if token.isspace() else token)
    if name in {"frac", "tfrac", "dfrac"}:
        above, below = _argument(tokens), _argument(tokens)
        if len(above) < 4 and len(below) < 4:
            return f"{above}/{below}"
        return f"{OPEN}{_grouped(above)} / {_grouped(below, '·')}{CLOSE}"
    if name == "binom":
        return f"C({_argument(tokens)}, {_argument(tokens)})"
    if name in {"begin", "end"}:  # of a matrix
        _argument(tokens)
        return "[" if name == "begin" else "]"
    if name == "sqrt":
        return "√" + _grouped(_argument(tokens), " ·/+-")
    if name in PLAIN:
        return _argument(tokens)
    if name in MARKS:
        return _argument(tokens) + MARKS[name]
    if name in FUNCTIONS:
        return f" {name} "
    return SIGNS.get(name, token)


def _argument(tokens: Iterator[str]) -> str:
    """What a command applies to: a group, a command with its own, or one sign."""
    for token in tokens:
        if not token.isspace():
            return _one(token, tokens).strip()
    return ""


def _grouped(text: str, also: str = "") -> str:
    """Parentheses, where what is inside would come apart."""
    depth = 0
    for at, sign in enumerate(text):
        depth += sign in f"([{{{OPEN}"
        depth -= sign in f")]}}{CLOSE}"
        loose = sign in also or (sign in "+±·×-" and at > 0 and text[at - 1] == " ")
        if depth == 0 and loose:
            return f"({text})"
    return text


def _script(kind: str, text: str) -> str:
    """A raised or lowered text, in small characters if all of it has them."""
    small = RAISED if kind == "^" else LOWERED
    if text and all(sign in small for sign in text):
        return "".join(small[sign] for sign in text)
    if text == "ᵀ":
        return text
    single = len(text) == 1 or (kind == "_" and text.isalnum())
    return kind + (text if single else f"({text})")
