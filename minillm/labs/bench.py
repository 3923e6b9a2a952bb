r"""A bench for small experiments: many little models, and a file that remembers them.

**The question.** One trained model proves little: another seed might have said the
opposite. An experiment is *configurations times seeds*, and on a laptop it takes an
hour, in which the lid gets closed. How can a result be trusted afterwards, and how can
it be had without starting again?

Everything that a run depends on stands in one small dictionary, its configuration, and
a number, its seed. Their product is the plan:

>>> plan([{"width": 16}, {"width": 32}], seeds=2)
[({'width': 16}, 0), ({'width': 32}, 0), ({'width': 16}, 1), ({'width': 32}, 1)]

All configurations come before the second seed: stopped half-way, a sweep has the whole
picture once and lacks only its error bars. Each result is written to the file as soon
as it is there, with the plan's entry beside it, so the next start does what is missing.

The x-axis of every experiment is compute: the FLOPs of training, counted by
[`minillm.flops`][], not seconds, which would say more about the laptop than the model.

**Used by** [`minillm.labs.context`][], [`minillm.labs.digits`][] and
[`minillm.labs.scaling`][]; told in [`minillm.emergence`][].
"""

import functools
import json
import multiprocessing
import platform
import signal
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

import minillm
from minillm.files.reading import IMAGES, read_json
from minillm.files.writing import atomic_write, locked
from minillm.model import TransformerLM
from minillm.train import AdamW, clip_gradients, cosine_schedule, cross_entropy

__all__ = [
    "Lab",
    "by_config",
    "change",
    "committed",
    "learn",
    "plan",
    "read_results",
    "run_lab",
]

Config = dict[str, Any]
Point = tuple[Config, int]


@dataclass(frozen=True)
class Lab:
    r"""An experiment: what to run, what it costs, what it shows.

    Args:
        name: how the command line calls it.
        version: grows when the same configuration would give another result.
        points: the plan; the argument says whether the quick one.
        run: trains one model. A function of a module, so that another process finds it
            by name; the same configuration and seed give the same result.
        flops: what the training of one configuration costs.
        report: says in a few lines what the results show.
    """

    name: str
    version: int
    points: Callable[[bool], list[Point]]
    run: Callable[[Config, int], dict[str, Any]]
    flops: Callable[[Config], int]
    report: Callable[[list[dict[str, Any]]], str]


def plan(configs: Iterable[Config], seeds: int) -> list[Point]:
    """Combine each configuration with each seed, the seeds in the outer loop.

    Args:
        configs: what to try.
        seeds: how often to try each, at least once.

    Returns:
        Pairs of configuration and seed.
    """
    configs = list(configs)
    return [(config, seed) for seed in range(seeds) for config in configs]


def change(points: Sequence[Point], setting: str) -> list[Point]:
    r"""Change one number in every configuration of a plan.

    Args:
        points: the plan.
        setting: `KEY=VALUE`, with a key that its configurations have.

    Returns:
        The plan, without the doubles that may arise.

    Raises:
        ValueError: if there is no such key, or the value is no number of its kind.

    Examples:
        >>> change(plan([{"width": 16}, {"width": 32}], seeds=1), "width=64")
        [({'width': 64}, 0)]
        >>> change([({"width": 16}, 0)], "depth=3")
        Traceback (most recent call last):
        ValueError: no 'depth' to set: there are width
    """
    key, _, value = setting.partition("=")
    config, _ = points[0]
    if key not in config:
        raise ValueError(f"no {key!r} to set: there are {', '.join(config)}")
    kind = type(config[key])
    try:
        changed = [(config | {key: kind(value)}, seed) for config, seed in points]
    except ValueError:
        raise ValueError(
            f"{key} takes a {kind.__name__}, like {config[key]}; got {value!r}"
        ) from None
    return list({_key(*point): point for point in changed}.values())


def learn(
    model: TransformerLM,
    draw: Callable[[torch.Generator], tuple[Tensor, Tensor]],
    config: Config,
    seed: int,
    look: Callable[[int], None],
) -> None:
    r"""Train on examples that are made up as they are needed, so that none comes twice.

    The loop of [`minillm.train.train`][], for tasks instead of a text. With endless
    examples there is nothing to memorize; what is measured on new ones is the skill.

    Args:
        model: changed in place.
        draw: gives a batch of inputs and targets; a target of -1 does not count.
        config: `steps`, and `lr`, the highest learning rate.
        seed: fixes which examples are drawn.
        look: called with the number of steps done: before the first, about forty times
            on the way, and after the last.
    """
    random = torch.Generator().manual_seed(seed)
    steps, max_lr = config["steps"], config["lr"]
    weights = list(model.parameters())
    optimizer = AdamW(weights, betas=(0.9, 0.95), weight_decay=0.0)
    look(0)
    for step in range(1, steps + 1):
        lr = cosine_schedule(step, max_lr, max_lr / 10, min(50, steps // 10), steps)
        optimizer.param_groups[0]["lr"] = lr
        inputs, targets = draw(random)
        counts = targets >= 0
        loss = cross_entropy(model(inputs)[counts], targets[counts])
        optimizer.zero_grad()
        loss.backward()
        clip_gradients(weights, 1.0)
        optimizer.step()
        if step % max(1, steps // 40) == 0 or step == steps:
            look(step)


@contextmanager
def _one_thread() -> Generator[None]:
    # The sum of many numbers depends on how threads share it out, so a result that
    # shall be repeated has one; and so small a model is no faster with two.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _measure(lab: Lab, config: Config, seed: int) -> dict[str, Any]:
    start = time.process_time()
    with _one_thread():
        result = lab.run(config, seed)
    return {
        "config": config,
        "seed": seed,
        "flops": lab.flops(config),
        "seconds": round(time.process_time() - start, 1),
        "minillm": minillm.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        **result,
    }


def _key(config: Config, seed: int) -> str:
    return json.dumps([config, seed], sort_keys=True)


def read_results(path: str | PathLike[str], lab: Lab) -> list[dict[str, Any]]:
    """Read the results of a lab.

    Args:
        path: the file.
        lab: whose results they should be.

    Returns:
        One dictionary for each model that was trained: its `config` and `seed`, the
        `flops` and `seconds` (of processor time) that it took, the versions and the
        machine it was made with, and what the lab measured.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds something else, or results of another version.
    """
    path = Path(path)
    try:
        content = read_json(path)
        found, points = (content["lab"], content["version"]), content["points"]
        whole = all(
            isinstance(point["config"], dict) and type(point["seed"]) is int
            for point in points
        )
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise ValueError(f"{path} holds no results of a lab: name another file")
    if found != (lab.name, lab.version):
        raise ValueError(
            f"{path} holds results of lab {found[0]!r:.80}, version {found[1]!r:.80}; "
            "this is "
            f"{lab.name!r}, version {lab.version}, and the two must not be mixed: name "
            "another file"
        )
    return points


@functools.cache  # a chapter asks for them twenty times
def committed(lab: Lab) -> list[dict[str, Any]]:
    """Read the committed results of a lab.

    Args:
        lab: which.

    Returns:
        One dictionary for each model, as from
        [`read_results`][minillm.labs.bench.read_results].
    """
    return read_results(IMAGES / "data" / f"lab-{lab.name}.json", lab)


def _write(path: Path, lab: Lab, points: Sequence[dict[str, Any]]) -> None:
    head = json.dumps({"lab": lab.name, "version": lab.version})[:-1]
    lines = ",\n".join(json.dumps(point) for point in points)
    with atomic_write(path) as file:
        file.write(f'{head}, "points": [\n{lines}\n]}}\n'.encode())


def run_lab(
    lab: Lab,
    points: Sequence[Point],
    path: str | PathLike[str],
    *,
    workers: int = 1,
    budget: float | None = None,
    console: Console | None = None,
) -> list[dict[str, Any]]:
    r"""Do what a plan asks for and the file does not have yet.

    Args:
        lab: the experiment.
        points: the plan.
        path: the file of results, made if there is none, and extended after each model.
        workers: how many processes share the work, of one thread each.
        budget: leave out every model whose training takes more FLOPs.
        console: where to show the progress; `None` for nowhere.

    Returns:
        The results of the plan, in its order. The file may hold more.

    Raises:
        ValueError: if the budget is too small for any model, the number of workers is
            not positive, or the file holds something else.
        BlockingIOError: if another process extends the same file.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1; got {workers}")
    path, console = Path(path), console or Console(quiet=True)
    cheapest = min(lab.flops(config) for config, _ in points)
    if budget is not None:
        points = [point for point in points if lab.flops(point[0]) <= budget]
    if not points:
        raise ValueError(
            f"a budget of {budget:.2g} FLOPs is too small for one model: the cheapest "
            f"of lab {lab.name!r} takes {cheapest:.2g}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two processes would each write the whole file, without what the other has done.
    with locked(path):
        return _extend(lab, points, path, workers, console)


def _extend(
    lab: Lab, points: Sequence[Point], path: Path, workers: int, console: Console
) -> list[dict[str, Any]]:
    done = read_results(path, lab) if path.exists() else []
    known = {_key(result["config"], result["seed"]) for result in done}
    missing = [point for point in points if _key(*point) not in known]
    total = sum(lab.flops(config) for config, _ in points)
    columns = (
        TextColumn("{task.fields[count]}/" + f"{len(points)} models"),
        BarColumn(bar_width=20),
        TextColumn("{task.percentage:3.0f}% of " + f"{total:.1e} FLOPs"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        count = len(points) - len(missing)
        task = bar.add_task("", total=total, count=count)
        bar.advance(task, total - sum(lab.flops(config) for config, _ in missing))
        for result in _results(lab, missing, workers):
            done.append(result)
            _write(path, lab, done)
            count += 1
            bar.update(task, advance=result["flops"], count=count)
    found = {_key(result["config"], result["seed"]): result for result in done}
    return [found[_key(*point)] for point in points]


def _results(
    lab: Lab, points: Sequence[Point], workers: int
) -> Iterator[dict[str, Any]]:
    if workers == 1 or len(points) < 2:
        for point in points:
            yield _measure(lab, *point)
        return
    # A fresh interpreter for each, the only kind that every system has; what a forked
    # one inherits, locks of PyTorch's threads among it, may never work again.
    spawn = multiprocessing.get_context("spawn")
    others = multiprocessing.active_children()
    with ProcessPoolExecutor(min(workers, len(points)), spawn, _ignore_stop) as pool:
        try:
            jobs = [pool.submit(_measure, lab, *point) for point in points]
            for job in as_completed(jobs):
                yield job.result()
        except BaseException:
            # Nobody who stops a run wants to wait for models that are half trained.
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                if child not in others:
                    child.terminate()
            raise


def _ignore_stop() -> None:
    # The key that stops a program reaches all of its processes. One answers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def by_config(
    results: Iterable[dict[str, Any]],
) -> list[tuple[Config, list[dict[str, Any]]]]:
    """Put together the results that differ only in their seed.

    Args:
        results: what [`run_lab`][minillm.labs.bench.run_lab] returned.

    Returns:
        Each configuration, in the order of its first result, with all of its results.

    Examples:
        >>> points = plan([{"width": 16}, {"width": 32}], seeds=3)
        >>> results = [{"config": config, "seed": seed} for config, seed in points]
        >>> [(config, len(same)) for config, same in by_config(results)]
        [({'width': 16}, 3), ({'width': 32}, 3)]
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault(_key(result["config"], 0), []).append(result)
    return [(same[0]["config"], same) for same in groups.values()]
