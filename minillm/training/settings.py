r"""The settings of a training run: one list, for code, files and the command line.

**The question.** A run that cannot be repeated has shown nothing. Which hyperparameters
did it have, and where are they recorded?

There is one list, the dataclass [`TrainConfig`][minillm.training.settings.TrainConfig].
The options of `minillm train` are made from its fields, their help from its docstring,
and a run keeps its settings as a TOML file in the same words. So no option is missing
in one of the three places, and a setting that does not exist is refused:

>>> from dataclasses import asdict
>>> text = to_toml({"train": TrainConfig(steps=60, max_lr=0.01)})
>>> print(*text.splitlines()[:3], sep="\n")
[train]
# how many steps.
steps = 60
>>> parse_toml(text, "run.toml")["train"] == asdict(TrainConfig(60, max_lr=0.01))
True
>>> parse_toml("[train]\nmax_rl = 0.01", "run.toml")
Traceback (most recent call last):
ValueError: run.toml has no setting 'max_rl': did you mean 'max_lr'?

Like `ModelConfig`, this module needs no PyTorch.
"""

import difflib
import inspect
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from os import PathLike
from typing import Any, get_args, get_origin, get_type_hints

from minillm.config import ModelConfig
from minillm.files.reading import read_utf8

__all__ = [
    "Setting",
    "TrainConfig",
    "differences",
    "parse_toml",
    "read_toml",
    "settings",
    "to_toml",
]


@dataclass(frozen=True)
class TrainConfig:
    r"""The hyperparameters of a training; the shape of the model is a `ModelConfig`.

    The defaults train a million parameters on two CPU cores in about two minutes.

    Args:
        steps: how many steps.
        batch_size: $B$, sequences in a batch.
        grad_accum: gradient accumulation: into how many micro-batches a batch is split.
            More take less memory and more time, and learn the same; divides
            `batch_size`.
        max_lr: the learning rate at the end of the warm-up.
        min_lr: the learning rate of the last step.
        warmup_steps: for how many steps the learning rate rises, by default a tenth of
            all steps and at most 100.
        betas: how much of its two moments AdamW keeps.
        weight_decay: the share of each matrix that is subtracted in a step, times the
            learning rate. Vectors do not decay, see
            [`decay_matrices`][minillm.training.optimizer.decay_matrices].
        max_norm: to which gradient norm larger ones are clipped; see
            [`clip_gradients`][minillm.training.optimizer.clip_gradients].
        max_rise: by how many nats the mean loss of twenty steps may exceed the lowest
            such mean before training stops; `inf` for never.
        eval_every: how many steps lie between two evaluations on the validation text.
        eval_tokens: on how many tokens of the validation text a run evaluates.
        seed: fixes the batches and, where a run makes the model, its initial weights.
        dtype: in which precision the model computes, `float32` or `bf16`. The weights
            stay in float32 either way.
        compile: whether `torch.compile` makes the model faster, after a minute or so.

    Raises:
        ValueError: if a number is out of its range.

    Examples:
        >>> TrainConfig(steps=0)
        Traceback (most recent call last):
        ValueError: steps must be at least 1; got 0

        The warm-up fits the steps:

        >>> TrainConfig().warmup_steps, TrainConfig(steps=60).warmup_steps
        (100, 6)
        >>> TrainConfig(steps=60, warmup_steps=100)
        Traceback (most recent call last):
        ValueError: warmup_steps must be at most steps=60; got 100: choose fewer
    """

    steps: int = 4500
    batch_size: int = 4
    grad_accum: int = 1
    max_lr: float = 1.5e-3
    min_lr: float = 0.0
    warmup_steps: int = None  # type: ignore[assignment]  # None until __post_init__
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.3
    max_norm: float = 1.0
    max_rise: float = 1.0
    eval_every: int = 500
    eval_tokens: int = 100_000
    seed: int = 0
    dtype: str = "float32"
    compile: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "grad_accum", "eval_every"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be at least 1; got {getattr(self, name)}"
                )
        # Frozen for its users; the default that depends on another field is set here.
        if self.warmup_steps is None:
            object.__setattr__(self, "warmup_steps", min(100, self.steps // 10))
        if self.eval_tokens < 2:
            raise ValueError(f"eval_tokens must be at least 2; got {self.eval_tokens}")
        for name in ("max_lr", "max_norm", "max_rise"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive; got {getattr(self, name)}")
        for name in ("min_lr", "warmup_steps", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more; got {getattr(self, name)}")
        if self.warmup_steps > self.steps:
            raise ValueError(
                f"warmup_steps must be at most steps={self.steps}; got "
                f"{self.warmup_steps}: choose fewer"
            )
        if self.batch_size % self.grad_accum:
            raise ValueError(
                f"batch_size={self.batch_size} is not a multiple of "
                f"grad_accum={self.grad_accum}: change one of them"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must lie in [0, 1); got {self.betas}")
        if self.dtype not in {"float32", "bf16"}:
            raise ValueError(f"dtype must be float32 or bf16; got {self.dtype!r:.80}")


@dataclass(frozen=True)
class Setting:
    """One setting, as a file or the command line needs to know it.

    Attributes:
        name: its name.
        kind: its type.
        default: its value if none is given; `None` if it has no default, or one that
            depends on other settings.
        help: what it does, the first sentence of its description.
    """

    name: str
    kind: Any
    default: Any
    help: str


# What a file does not say: the vocabulary is the tokenizer's.
NOT_IN_FILES = {"vocab_size"}
TABLES: dict[str, type] = {"model": ModelConfig, "train": TrainConfig}


def settings(table: type) -> list[Setting]:
    """List the settings of a dataclass that a file or a command line can say.

    Args:
        table: the dataclass, with one entry for each field under `Args:`.

    Returns:
        Its settings, in order; those that are neither a number, a word, a truth value
        nor a pair of numbers are left out.

    Examples:
        >>> from minillm.config import ModelConfig
        >>> [s.name for s in settings(ModelConfig)][:3]
        ['context_length', 'd_model', 'n_layers']
        >>> settings(TrainConfig)[0]
        Setting(name='steps', kind=<class 'int'>, default=4500, help='how many steps.')
    """
    kinds = get_type_hints(table)
    described = _descriptions(inspect.getdoc(table) or "")
    return [
        Setting(
            f.name,
            kinds[f.name],
            f.default
            if isinstance(f.default, (bool, int, float, str, tuple))
            else None,
            described.get(f.name, ""),
        )
        for f in fields(table)
        if f.name not in NOT_IN_FILES and _can_be_said(kinds[f.name])
    ]


def _can_be_said(kind: Any) -> bool:
    return kind in {bool, int, float, str} or get_origin(kind) is tuple


def _descriptions(docstring: str) -> dict[str, str]:
    """What a docstring says about each argument, its first sentence, without markup."""
    section = re.search(r"^Args:\n((?:    .*\n)+)", docstring, re.MULTILINE)
    entries = re.findall(
        r"^    (\w+): (.*(?:\n {5,}.*)*)", section[1] if section else "", re.MULTILINE
    )
    plain = {}
    for name, text in entries:
        text = re.sub(r"\[`?([^\]`]+)`?\]\[[^\]]*\]", r"\1", " ".join(text.split()))
        text = re.sub(r"^\$[^$]*\$, ", "", text)
        plain[name] = re.split(r"(?<=[.;])\s", text.replace("`", ""))[0].rstrip(";")
    return plain


def to_toml(tables: Mapping[str, Any]) -> str:
    """Write settings as TOML, each with what it does above it.

    Args:
        tables: instances of the dataclasses of settings, such as a `ModelConfig` under
            `model` and a `TrainConfig` under `train`.

    Returns:
        The text of the file.
    """
    lines: list[str] = []
    for name, table in tables.items():
        lines += [f"[{name}]"]
        for s in settings(type(table)):
            lines += [f"# {s.help}", f"{s.name} = {_toml(getattr(table, s.name))}", ""]
    return "\n".join(lines)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def read_toml(
    path: str | PathLike[str], tables: Mapping[str, type] = TABLES
) -> dict[str, dict[str, Any]]:
    r"""Read settings from a file.

    Args:
        path: a TOML file with the tables `[model]` and `[train]`, either or both.
        tables: other tables, each a dataclass of settings.

    Returns:
        For each table, what the file says; what it leaves out is not there.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not TOML, has a setting that does not exist, or one of the
            wrong type.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "run.toml"
        ...     _ = path.write_text("[train]\nsteps = 60", encoding="utf-8")
        ...     read_toml(path)["train"]
        {'steps': 60}
    """
    return parse_toml(read_utf8(path), str(path), tables)


def parse_toml(
    text: str, name: str, tables: Mapping[str, type] = TABLES
) -> dict[str, dict[str, Any]]:
    """Read settings from the text of a file.

    Args:
        text: the text.
        name: what to call it in a message.
        tables: as for `read_toml`.

    Returns:
        As [`read_toml`][minillm.training.settings.read_toml].

    Raises:
        ValueError: as `read_toml`.
    """
    try:
        found = tomllib.loads(text)
        repr(found)  # thousands of digits, in any base, could not even be shown
    except ValueError as error:
        raise ValueError(
            f"{name} is not TOML ({error!s:.200}): mend that line"
        ) from error
    except RecursionError:
        raise ValueError(f"{name} is not TOML (nested too deep): mend it") from None
    _check_names(found, tables, f"{name} has no table")
    result: dict[str, dict[str, Any]] = {table: {} for table in tables}
    for table, values in found.items():
        if not isinstance(values, dict):
            raise ValueError(f"{name}: {table} must be a table, [{table}]")
        known = {s.name: s.kind for s in settings(tables[table])}
        _check_names(values, known, f"{name} has no setting")
        for key, value in values.items():
            result[table][key] = _checked(f"{name}: {key}", value, known[key])
    return result


def _check_names(given: Iterable[str], known: Iterable[str], complaint: str) -> None:
    known = list(known)
    for name in given:
        if name not in known:
            (nearest,) = difflib.get_close_matches(name, known, n=1, cutoff=0)
            raise ValueError(f"{complaint} {name!r:.80}: did you mean {nearest!r}?")


def _checked(name: str, value: Any, kind: Any) -> Any:
    """A value of a file, as the type that its setting has."""
    if kind is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"{name} is too large; got {value!r:.20}…") from None
    if get_origin(kind) is tuple:
        parts = get_args(kind)
        if isinstance(value, list) and len(value) == len(parts):
            pairs = zip(value, parts, strict=True)
            return tuple(_checked(name, part, wanted) for part, wanted in pairs)
        raise ValueError(f"{name} must be {len(parts)} numbers; got {value!r:.80}")
    # A truth value is an int to Python, and must not pass for one here.
    if type(value) is not kind:
        raise ValueError(f"{name} must be of type {kind.__name__}; got {value!r:.80}")
    return value


def differences(there: Any, here: Any) -> Iterator[str]:
    """Say in which settings two configurations of one kind differ.

    Args:
        there: the one that was.
        here: the one that is wanted.

    Yields:
        One phrase for each setting that differs.

    Examples:
        >>> list(differences(TrainConfig(), TrainConfig(seed=9)))
        ['seed is 0 there, 9 here']
    """
    wanted = asdict(here)
    for name, value in asdict(there).items():
        if value != wanted[name]:
            yield f"{name} is {value!r:.80} there, {wanted[name]!r:.80} here"
