r"""The commands `minillm flops`, `minillm cost` and `minillm disclose`.

It brings the numbers of [`minillm.flops`][] and its neighbours to a terminal, as a
table or as JSON.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from minillm.accounting.shapes import Architecture
    from minillm.config import ModelConfig

__all__ = ["cost", "disclose", "flops"]

# Who asks for more than this has leant on a key.
LARGEST = 10**15


def flops(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL",
            help="A name like gpt2-xl, a run's folder, or a config.json of the Llama "
            "kind. Several, or `compare A B`, stand side by side.",
        ),
    ],
    context: Annotated[
        int | None,
        typer.Option(help="Tokens in a sequence; by default all that it can read."),
    ] = None,
    batch: Annotated[int, typer.Option(help="Sequences in a batch.")] = 1,
    recompute: Annotated[
        bool,
        typer.Option("--recompute", help="Train with each block computed twice."),
    ] = False,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Ask PyTorch's counter, and the clock here."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count what a model costs in FLOPs and memory."""
    _check_sizes({"--batch": batch, "--context": 1 if context is None else context})
    shapes = {name: read_shape(name) for name in _names(models)}
    reports = [
        _report(name, shape, batch, context or shape.context_length, recompute)
        for name, shape in shapes.items()
    ]
    if not as_json:
        if len(reports) == 1:
            _print_products(shapes[reports[0]["model"]], reports[0])
        _print_reports(reports)
    if measure:
        for report in reports:
            report["measured"] = _measure(shapes[report["model"]], report, as_json)
    if as_json:
        print(json.dumps(reports[0] if len(reports) == 1 else reports, indent=2))
    if measure and not all(report["measured"]["equal"] for report in reports):
        sys.exit(1)


def _names(models: list[str]) -> list[str]:
    names = models[1:] if models[0] == "compare" else models
    if not names:
        raise ValueError("nothing to compare: name a model, or several")
    return names


def _check_sizes(sizes: dict[str, int]) -> None:
    from minillm.accounting.shapes import check_sizes

    check_sizes(**sizes)
    for name, size in sizes.items():
        if size > LARGEST:
            raise ValueError(
                f"{name} must be at most {LARGEST:.0e}; got a number of "
                f"{len(str(size))} digits"
            )


def read_shape(name: str) -> "ModelConfig | Architecture":
    """Find the shape of a model by its name, its folder or its configuration."""
    from minillm.accounting.shapes import PRESETS, preset

    path = Path(name)
    is_path = path.exists() or path.suffix == ".json" or len(path.parts) > 1
    if name.lower() in PRESETS or not is_path:
        return preset(name)
    from minillm.hub import read_config

    return read_config(path)


def _report(
    name: str,
    shape: "ModelConfig | Architecture",
    batch: int,
    context: int,
    recompute: bool,
) -> dict[str, Any]:
    from minillm.flops import (
        forward_flops,
        inference_memory,
        param_count,
        training_flops,
        training_memory,
    )

    forward = forward_flops(shape, batch, context)
    memory = training_memory(shape, batch, context, recompute=recompute)
    return {
        "model": name,
        "batch": batch,
        "context": context,
        "recompute": recompute,
        "parameters": param_count(shape).as_dict(),
        "forward": forward.as_dict(),
        "shares": forward.shares(),
        "training": training_flops(shape, batch, context, recompute),
        "training_memory": memory.as_dict(),
        "inference_memory": inference_memory(shape, batch, context).as_dict(),
    }


def _print_products(
    shape: "ModelConfig | Architecture", report: dict[str, Any]
) -> None:
    from minillm.flops import products, products_table

    print(
        products_table(products(shape, report["batch"], report["context"])), end="\n\n"
    )


def _print_reports(reports: list[dict[str, Any]]) -> None:
    from minillm.flops import aligned, short, six_nd

    def column(r: dict[str, Any]) -> dict[str, str]:
        train, run = r["training_memory"], r["inference_memory"]
        # A token of a mixture meets some of the experts, and only these cost FLOPs.
        estimate = six_nd(r["parameters"]["active"], r["batch"] * r["context"])
        cells = {
            "": r["model"],
            "sequences x tokens": f"{r['batch']} x {r['context']:,}",
            "parameters": f"{r['parameters']['total']:,}",
            "parameters, active": f"{r['parameters']['active']:,}",
            "FLOPs, forward pass": short(r["forward"]["total"]),
        }
        for part, share in r["shares"].items():
            name = "scores and mixing" if part == "attention" else part
            cells[f"  {name}"] = f"{share:.1%}"
        step = "FLOPs, training step"
        cells[step + (", recomputing" if r["recompute"] else "")] = short(r["training"])
        return cells | {
            "  6 x active parameters x tokens": short(estimate),
            "bytes to train, float32, AdamW": short(train["total"]),
            "  of these, activations": short(train["activations"]),
            "bytes to write, 16 bits": short(run["total"]),
            "  of these, keys and values": short(run["kv_cache"]),
        }

    columns = [column(report) for report in reports]
    print(aligned([[label, *(c[label] for c in columns)] for label in columns[0]]))


def _measure(
    shape: "ModelConfig | Architecture", report: dict[str, Any], quiet: bool
) -> dict[str, Any]:
    """Count by PyTorch, time a step if it fits, and print both as they come."""
    from minillm.accounting.measure import (
        machine_memory,
        measure_peak_flops,
        step_seconds,
        torch_flops,
    )
    from minillm.flops import mfu, short, training_flops

    def say(text: str) -> None:
        if not quiet:
            print(text, flush=True)

    work = shape, report["batch"], report["context"], report["recompute"]
    seen = torch_flops(*work)
    equal = seen == (report["forward"]["total"], report["training"])
    say(f"\n{report['model']}, measured")
    say(f"PyTorch counts  {seen[0]:,} FLOPs forward, {seen[1]:,} in a step")
    say(f"                {'the same as above' if equal else 'NOT the same as above'}")
    memory = report["training_memory"]
    needed = memory["total"] - memory["optimizer"]
    result = {"forward": seen[0], "training": seen[1], "equal": equal}
    here = machine_memory()
    if needed > here:
        say(
            f"the clock       not asked: a step keeps {short(needed)} bytes, and this "
            f"machine has {short(here)}"
        )
        return result
    peak = measure_peak_flops()
    say(
        f"peak here       {short(peak)} FLOP/s in float32, so a step takes at least "
        f"{seen[1] / peak:.3g} seconds"
    )
    seconds = step_seconds(*work)
    # What is recomputed is no use to the model, so it does not count as used.
    used = mfu(training_flops(*work[:3]), seconds, peak)
    say(f"the clock       {seconds:.3g} seconds, MFU {used:.0%}")
    return result | {"peak_flops": peak, "seconds": seconds, "mfu": used}


def cost(
    mfu: Annotated[
        float, typer.Option(help="Fraction of the peak that is reached, like 0.4.")
    ],
    price: Annotated[float, typer.Option(help="Dollars for one chip and hour.")],
    params: Annotated[
        str | None, typer.Option(help="Parameters, like 7e9, or a model's name.")
    ] = None,
    tokens: Annotated[
        float | None, typer.Option(help="Tokens to train on, like 2e12.")
    ] = None,
    flops: Annotated[
        float | None, typer.Option(help="FLOPs, instead of --params and --tokens.")
    ] = None,
    chip: Annotated[
        str | None,
        typer.Option(help="a100, h100, h200, h800, b200, tpu-v4 or tpu7x."),
    ] = None,
    peak: Annotated[
        float | None, typer.Option(help="FLOP/s of a chip, instead of --chip.")
    ] = None,
    count: Annotated[int, typer.Option(help="Chips that work side by side.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Turn a training run into days and dollars.

    Every assumption moves the result in proportion, so each is yours to give.
    """
    from minillm.flops import aligned, training_cost

    _check_sizes({"--count": count})
    total, origin = _total_flops(params, tokens, flops)
    peak_flops, name = _peak(chip, peak)
    result = training_cost(
        total,
        peak_flops=peak_flops,
        utilization=mfu,
        n_chips=count,
        dollars_per_chip_hour=price,
    )
    if as_json:
        assumed = {
            "flops": total,
            "peak_flops": peak_flops,
            "utilization": mfu,
            "n_chips": count,
            "dollars_per_chip_hour": price,
        }
        print(json.dumps({**assumed, **result.as_dict()}, indent=2))
        return
    rows = [
        ["FLOPs", f"{total:.3g}", origin],
        ["FLOP/s of a chip", f"{peak_flops * mfu:.3g}", f"{mfu:.0%} of {name}"],
        ["chip-hours", f"{result.chip_hours:,.0f}", ""],
        ["days", f"{result.days:,.1f}", f"on {count:,} chip{'s' * (count > 1)}"],
        ["dollars", f"{result.dollars:,.0f}", f"at {price:,.2f} an hour"],
    ]
    table = aligned([row[:2] for row in rows]).splitlines()
    for line, row in zip(table, rows, strict=True):
        print(f"{line}  {row[2]}".rstrip())


def _total_flops(
    params: str | None, tokens: float | None, flops: float | None
) -> tuple[float, str]:
    from minillm.accounting.shapes import check_positive
    from minillm.flops import param_count, six_nd

    if flops is not None and params is None and tokens is None:
        check_positive(**{"--flops": flops})
        return flops, "as given"
    if flops is not None or params is None or tokens is None:
        raise ValueError("say what is trained: --params and --tokens, or --flops alone")
    try:
        n_params, met = float(params), ""
    except ValueError:
        count = param_count(read_shape(params))
        # A token of a mixture meets some of the experts, and only these cost FLOPs.
        n_params, met = count.active, "active " * bool(count.idle)
    check_positive(**{"--params": n_params, "--tokens": tokens})
    origin = f"6 x {n_params:.3g} {met}parameters x {tokens:.3g} tokens"
    return six_nd(n_params, tokens), origin


def _peak(chip: str | None, peak: float | None) -> tuple[float, str]:
    from minillm.accounting.shapes import check_positive
    from minillm.flops import CHIPS

    if (chip is None) == (peak is None):
        raise ValueError(
            f"say what computes: --chip {', '.join(CHIPS)}, or the FLOP/s as --peak"
        )
    if peak is not None:
        check_positive(**{"--peak": peak})
        return peak, f"{peak:.3g}"
    known = CHIPS.get(str(chip).lower())
    if known is None:
        raise ValueError(
            f"no chip {chip!r}; there are: {', '.join(CHIPS)}; or give its --peak"
        )
    return known.peak_flops, f"{known.peak_flops:.4g}, {known.source}"


def disclose(
    run: Annotated[Path, typer.Argument(help="The folder of a run.")] = Path(
        "runs/demo"
    ),
) -> None:
    """Set a run of yours beside the GPT-4 report. What does either disclose?"""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from minillm.accounting.disclosure import GPT4_REPORT
    from minillm.accounting.disclosure import disclose as read_run

    ours = read_run(run)
    # `Text` is shown as it is; in a string, square brackets would be markup.
    table = Table("", "GPT-4 report", show_lines=True)
    table.add_column(Text(str(run)))
    for item, text in GPT4_REPORT.items():
        table.add_row(*map(Text, (item, text, ours[item])))
    Console().print(table)
