r"""The figures of the accounting chapters.

Three pictures: where the FLOPs go as models grow, where they go as contexts grow, and
the roof under which a chip works. They need no training: every point is computed by
[`minillm.flops`][] and its neighbours when the picture is drawn.
"""

from dataclasses import replace
from pathlib import Path

from minillm.accounting.cost import CHIPS
from minillm.accounting.memory import bytes_moved
from minillm.accounting.roofline import Roofline, roofline
from minillm.accounting.shapes import preset
from minillm.drawing.kit import (
    BLUE,
    DASHED,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    draw_roof,
    label_at,
    new_figure,
    save_figure,
)
from minillm.flops import forward_flops, opt_table

__all__ = ["context_curve", "roofline_curve", "shares_curve"]


def shares_curve(path: Path) -> None:
    r"""Draw where the FLOPs go in small and large models, by both accountings.

    Args:
        path: the SVG file to write.

    Raises:
        ImportError: if matplotlib is missing.
    """
    figure, axes = new_figure()
    for accounting in ("counted", "published"):
        rows = opt_table(accounting)
        names = [row.name for row in rows]
        for label, colour, values in (
            ("FFN", ORANGE, [100 * row.ffn for row in rows]),
            ("attention", BLUE, [100 * (row.mha + row.attn) for row in rows]),
        ):
            style = "-" if accounting == "counted" else DASHED
            axes.plot(names, values, color=colour, ls=style, marker="o", ms=4)
            text = f"{label}, {accounting}: {values[-1]:.0f} %"
            label_at(axes, text, (len(names) - 1, values[-1]), (8, 0), colour)
    axes.set(xlabel="size of the model", ylabel="percent of all FLOPs", ylim=(0, 100))
    axes.grid(axis="y")
    save_figure(
        figure,
        path,
        "Share of FLOPs of attention and feed-forward network against model size, as "
        "published and as counted",
    )


def context_curve(path: Path) -> None:
    r"""Draw where the FLOPs go in GPT-2 XL as its context grows to a million tokens.

    Args:
        path: the SVG file to write.

    Raises:
        ImportError: if matplotlib is missing.
    """
    xl = preset("gpt2-xl")
    lengths = [round(2 ** (k / 4)) for k in range(4 * 10, 4 * 20 + 1)]
    models = {"-": xl, DASHED: replace(xl, mlp_matrices=3)}
    curves = {
        style: [forward_flops(shape, 1, length).shares() for length in lengths]
        for style, shape in models.items()
    }
    figure, axes = new_figure()
    for part, name, colour, at in (
        ("ffn", "FFN", ORANGE, 0),
        ("projections", "projections", GREEN, 0),
        ("head", "head", PURPLE, 16),
    ):
        values = [100 * shares[part] for shares in curves["-"]]
        axes.plot(lengths, values, color=colour)
        label_at(axes, name, (lengths[at], values[at]), (0, 9), colour)
    at = lengths.index(16384)
    for style, name, offset, ha in (
        ("-", "scores and mixing", (-8, 6), "right"),
        (DASHED, "the same, were the FFN a SwiGLU", (8, -8), "left"),
    ):
        values = [100 * shares["attention"] for shares in curves[style]]
        axes.plot(lengths, values, color=BLUE, ls=style)
        axes.plot(lengths[at], values[at], color=BLUE, marker="o", ms=5)
        text = f"{name}: {values[at]:.1f} %"
        label_at(axes, text, (lengths[at], values[at]), offset, BLUE, ha)
    axes.set_xscale("log", base=2)
    axes.minorticks_off()
    axes.set_xticks(lengths[::8], [f"{length:,}" for length in lengths[::8]])
    axes.set(xlabel="tokens in the context", ylabel="percent of all FLOPs")
    axes.set_ylim(0, 100)
    axes.grid(axis="y")
    save_figure(
        figure, path, "Share of FLOPs of each part of GPT-2 XL against context length"
    )


def roofline_curve(path: Path) -> None:
    r"""Draw the roof of an H100, and under it prefill and decode of two models.

    Args:
        path: the SVG file to write.

    Raises:
        ImportError: if matplotlib is missing.
    """
    chip = CHIPS["h100"]
    figure, axes = new_figure()
    ridge = draw_roof(axes, chip.peak_flops, chip.bandwidth, 0.5, 10_000)
    axes.plot([ridge, ridge], [1e12, chip.peak_flops], color=INK, lw=1, ls=DASHED)
    label_at(axes, f"ridge: {ridge:.0f} FLOPs a byte", (ridge, 2e12), (6, 0), INK)
    for model, name, colour, batch_size, seq_len, offset, ha in (
        ("llama2-7b", "decode, Llama 2 7B", BLUE, 1, 1, (9, -5), "left"),
        ("llama2-7b", "decode, 64 texts at once", BLUE, 64, 1, (9, -5), "left"),
        ("llama3-8b", "the same, Llama 3 8B (GQA)", ORANGE, 64, 1, (-8, 6), "right"),
        ("llama2-7b", "prefill, Llama 2 7B", GREEN, 1, 2048, (0, -12), "center"),
    ):
        step = _step(model, batch_size, seq_len, past=2048 if seq_len == 1 else 0)
        point = step.intensity, min(chip.peak_flops, step.intensity * chip.bandwidth)
        axes.plot(*point, color=colour, marker="o", ms=6)
        label_at(axes, name, point, offset, colour, ha)
    axes.set(xscale="log", yscale="log", xlim=(0.5, 10_000), ylim=(1e12, 3e15))
    axes.set_xlabel("arithmetic intensity, FLOPs for each byte moved")
    axes.set_ylabel("FLOP/s of an H100 at best")
    save_figure(
        figure,
        path,
        "Best possible speed of an H100 against arithmetic intensity: a line that "
        "rises to the ridge and stays flat, decoding far below it, prefill beyond",
    )


def _step(model: str, batch_size: int, seq_len: int, past: int) -> Roofline:
    work = preset(model), batch_size, seq_len
    return roofline(
        forward_flops(*work, past=past).total,
        bytes_moved(*work, past=past),
        CHIPS["h100"].peak_flops,
        CHIPS["h100"].bandwidth,
    )
