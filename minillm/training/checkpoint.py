r"""Checkpoints: a training run in one file.

The file is a safetensors file: a header in JSON, then the numbers as they lie in
memory. Unlike Python's pickle, which PyTorch's own `torch.save` uses, reading it can
never run code. (Format: <https://huggingface.co/docs/safetensors>.)

The tensors come from two places. Those of the model keep the names that its
`state_dict` gives them, behind `model.`; those of the optimizer are behind
`optimizer.`, with the number of the weight that they belong to. Whatever is not a
tensor (the step, learning rates, anything else that you pass) is JSON in the header.

A model in training leaves little memory free: with AdamW, weights, gradients and both
moments take four numbers per parameter. So a checkpoint, three of these four, is
written tensor by tensor, straight from where each lies. Collecting it first, as the
library's own `save` does, would need all of it once more, and would end a run that just
fits at its first checkpoint.
"""

import json
from io import BufferedIOBase
from os import PathLike, fspath
from typing import IO, Any, Final

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from minillm.files.reading import parse_json
from minillm.files.writing import atomic_write

__all__ = ["compare", "load_checkpoint", "read_extra", "save_checkpoint"]

# What safetensors calls the types of numbers.
DTYPES: Final = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}

# What checks types at run time does not see an `IO[bytes]` in an `io.BytesIO`.
PathOrFile = str | PathLike[str] | IO[bytes] | BufferedIOBase


def save_checkpoint(
    path_or_file: PathOrFile,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    **extra: Any,
) -> None:
    r"""Write model, optimizer and step to one file.

    A path is written to a temporary name first and then renamed, so an interrupted
    write leaves the file that was there before.

    Args:
        path_or_file: a path, or a file opened for writing bytes.
        model: any module. Weights that it uses twice are written once.
        optimizer: any optimizer.
        step: how many steps have been taken.
        **extra: anything that JSON can represent, read back by
            [`read_extra`][minillm.training.checkpoint.read_extra].

    Raises:
        TypeError: if something in `extra` is not JSON, or a tensor has a type that
            safetensors lacks.
    """
    # A compiled model puts `_orig_mod.` in front of every name; its original does not.
    model = getattr(model, "_orig_mod", model)
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}  # names of weights that have been written already
    seen: dict[tuple[Any, ...], str] = {}
    for name, tensor in model.state_dict().items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if place in seen:
            aliases[f"model.{name}"] = seen[place]
        else:
            seen[place] = f"model.{name}"
            tensors[f"model.{name}"] = tensor
    state = optimizer.state_dict()
    scalars: dict[str, Any] = {}
    for i, entries in state["state"].items():
        for key, value in entries.items():
            keep = tensors if isinstance(value, Tensor) else scalars
            keep[f"optimizer.{i}.{key}"] = value
    header = {
        "step": step,
        "aliases": aliases,
        "param_groups": _pack(state["param_groups"]),
        "optimizer_scalars": _pack(scalars),
        "extra": _pack(extra),
    }
    metadata = {"minillm": json.dumps(header)}
    if isinstance(path_or_file, (str, PathLike)):
        with atomic_write(path_or_file) as file:
            _write(file, tensors, metadata)
    else:
        _write(path_or_file, tensors, metadata)


def _write(
    file: IO[bytes] | BufferedIOBase,
    tensors: dict[str, Tensor],
    metadata: dict[str, str],
) -> None:
    """Write a safetensors file without collecting it in memory."""
    # The widest numbers first, so that each begins at a multiple of its size.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name in names:
        t = tensors[name]
        if t.dtype not in DTYPES:
            raise TypeError(f"{name} has the type {t.dtype}, which safetensors lacks")
        start, end = end, end + t.numel() * t.element_size()
        header[name] = {
            "dtype": DTYPES[t.dtype],
            "shape": list(t.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in names:
        # What is on a GPU or not contiguous is copied, one tensor at a time.
        packed = tensors[name].detach().cpu().contiguous().reshape(-1)
        file.write(packed.view(torch.uint8).numpy().data)


def load_checkpoint(
    path_or_file: PathOrFile,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
) -> int:
    r"""Read a checkpoint back into a model, and into an optimizer if there is one.

    Args:
        path_or_file: a path, or a file opened for reading bytes.
        model: of the same architecture as the one that was saved.
        optimizer: over the same weights in the same order; afterwards its `state_dict`
            equals the one that was saved.

    Returns:
        The step.

    Raises:
        ValueError: if the file is not a checkpoint, or belongs to another model: then
            the message names the tensors that differ.

    Examples:
        >>> import io
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> file = io.BytesIO()
        >>> save_checkpoint(file, model, optimizer, step=7)
        >>> _ = file.seek(0)
        >>> load_checkpoint(file, nn.Linear(2, 1))
        7
        >>> _ = file.seek(0)
        >>> load_checkpoint(file, nn.Linear(3, 1))
        Traceback (most recent call last):
        ValueError: checkpoint and model differ: weight is [1, 2] there, [1, 3] here
    """
    header, tensors = _read(path_or_file)
    name = _name(path_or_file)
    model = getattr(model, "_orig_mod", model)
    try:
        for alias, target in header["aliases"].items():
            tensors[alias] = tensors[target]
        weights = _under("model.", tensors)
        compare(weights, model.state_dict(), "checkpoint and model")
        step = int(header["step"])
        if optimizer is not None:
            optimizer.load_state_dict(_optimizer_state(header, tensors))
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(
            f"{name} is not a whole checkpoint ({error!r:.80}): use an earlier one"
        ) from error
    except ValueError as error:
        # Of a file that is open the caller knows more than we do.
        if not isinstance(path_or_file, (str, PathLike)):
            raise
        raise ValueError(f"{name}: {error!s:.400}") from error
    model.load_state_dict(weights)
    return step


def _optimizer_state(
    header: dict[str, Any], tensors: dict[str, Tensor]
) -> dict[str, Any]:
    entries: dict[str, Any] = _under("optimizer.", tensors)
    entries |= _under("optimizer.", _unpack(header["optimizer_scalars"]))
    state: dict[int, dict[str, Any]] = {}
    for name, value in entries.items():
        i, key = name.split(".", 1)
        state.setdefault(int(i), {})[key] = value
    return {"state": state, "param_groups": _unpack(header["param_groups"])}


def read_extra(path_or_file: PathOrFile) -> dict[str, Any]:
    """Read what was passed to `save_checkpoint` beyond model, optimizer and step.

    Args:
        path_or_file: a path, or a file opened for reading bytes.

    Returns:
        The extra values by name.

    Raises:
        ValueError: if the file is not a checkpoint.

    Examples:
        >>> import io
        >>> model = torch.nn.Linear(1, 1)
        >>> file = io.BytesIO()
        >>> optimizer = torch.optim.SGD(model.parameters())
        >>> save_checkpoint(file, model, optimizer, 3, best=(1, 2))
        >>> _ = file.seek(0)
        >>> read_extra(file)
        {'best': (1, 2)}
    """
    header, _ = _read(path_or_file, with_tensors=False)
    extra = _unpack(header.get("extra"))
    if not isinstance(extra, dict):
        raise ValueError(f"{_name(path_or_file)} is not a whole checkpoint: no extra")
    return extra


def _read(
    path_or_file: PathOrFile, with_tensors: bool = True
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    tensors = {}
    try:
        if isinstance(path_or_file, (str, PathLike)):
            # The file is memory-mapped: only what is asked for is read. The tensors are
            # copied, since they outlive the file's contents.
            with safetensors.safe_open(path_or_file, framework="pt") as file:
                metadata = file.metadata()
                for name in file.keys() if with_tensors else ():
                    tensors[name] = file.get_tensor(name).clone()
        else:
            data = path_or_file.read()
            tensors = safetensors.torch.load(data)
            # It begins with the length of its header, as eight bytes.
            end = 8 + int.from_bytes(data[:8], "little")
            metadata = json.loads(data[8:end])["__metadata__"]
        header = parse_json(metadata["minillm"], "its header")
        if not isinstance(header, dict):
            raise TypeError("its header is no object")
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{_name(path_or_file)} is not a whole checkpoint ({error!s:.200}): use an "
            "earlier one"
        ) from error
    return header, tensors


def _name(path_or_file: PathOrFile) -> str:
    if isinstance(path_or_file, (str, PathLike)):
        return fspath(path_or_file)
    return str(getattr(path_or_file, "name", "the file"))


def _under(prefix: str, entries: dict[str, Any]) -> dict[str, Any]:
    """The entries whose names begin with `prefix`, without it."""
    return {
        name.removeprefix(prefix): value
        for name, value in entries.items()
        if name.startswith(prefix)
    }


def compare(there: dict[str, Tensor], here: dict[str, Tensor], sides: str) -> None:
    """Name the tensors in which a file and a model differ, if any do.

    Args:
        there: the tensors of the file by name.
        here: those of the model.
        sides: what is compared, for the message.

    Raises:
        ValueError: if a name or a shape differs.

    Examples:
        >>> compare({"a": torch.ones(2)}, {"a": torch.ones(3)}, "file and model")
        Traceback (most recent call last):
        ValueError: file and model differ: a is [2] there, [3] here
    """
    shapes = [
        {name: list(tensor.shape) for name, tensor in side.items()}
        for side in (there, here)
    ]
    differences = [
        f"{name} is {shapes[0].get(name, 'missing')} there, "
        f"{shapes[1].get(name, 'missing')} here"
        for name in sorted(shapes[0].keys() | shapes[1].keys())
        if shapes[0].get(name) != shapes[1].get(name)
    ]
    if differences:
        more = f", and {len(differences) - 3} more" if len(differences) > 3 else ""
        shown = "; ".join(f"{difference:.120}" for difference in differences[:3])
        raise ValueError(f"{sides} differ: {shown}{more}")


def _pack(value: Any) -> Any:
    """Mark tuples, since JSON has only lists."""
    if isinstance(value, tuple):
        return {"__tuple__": [_pack(item) for item in value]}
    if isinstance(value, list):
        return [_pack(item) for item in value]
    if isinstance(value, dict):
        return {key: _pack(item) for key, item in value.items()}
    return value


def _unpack(value: Any) -> Any:
    """The inverse of `_pack`."""
    if isinstance(value, dict):
        if value.keys() == {"__tuple__"}:
            return tuple(_unpack(item) for item in value["__tuple__"])
        return {key: _unpack(item) for key, item in value.items()}
    return [_unpack(item) for item in value] if isinstance(value, list) else value
