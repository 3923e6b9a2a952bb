"""Write the small inventories by which names of Python and torch become links.

Run from anywhere: `python renderer/inventories/make.py`. They are picked by hand, and
read from disk, so that building the site asks no network.
"""

from pathlib import Path

from mkdocstrings import Inventory

PYTHON = {
    "library/collections.html": (
        "collections.Counter collections.defaultdict collections.deque"
    ),
    "library/concurrent.futures.html": (
        "concurrent.futures.Executor concurrent.futures.ProcessPoolExecutor"
    ),
    "library/dataclasses.html": (
        "dataclasses.dataclass dataclasses.field dataclasses.fields"
    ),
    "library/functools.html": "functools.cache functools.lru_cache functools.partial",
    "library/heapq.html": "heapq.heapify heapq.heappop heapq.heappush",
    "library/itertools.html": (
        "itertools.batched itertools.chain itertools.islice itertools.pairwise"
    ),
    "library/math.html": "math.exp math.inf math.log math.log2 math.sqrt",
    "library/pathlib.html": "pathlib.Path",
}
TORCH = {
    "generated/torch.optim.AdamW.html": "torch.optim.AdamW",
    "generated/torch.nn.functional.cross_entropy.html": (
        "torch.nn.functional.cross_entropy"
    ),
    "generated/torch.nn.functional.scaled_dot_product_attention.html": (
        "torch.nn.functional.scaled_dot_product_attention"
    ),
    "generated/torch.nn.Module.html": "torch.nn.Module",
    "optim.html": "torch.optim.Optimizer",
    "tensors.html": "torch.Tensor",
}


def inventory(project: str, pages: dict[str, str]) -> bytes:
    """Build one inventory.

    Args:
        project: the name of the project.
        pages: by page, the names that it defines, each an anchor on it.

    Returns:
        The inventory in Sphinx's format.
    """
    result = Inventory(project=project, version="")
    for page, names in pages.items():
        for name in names.split():
            result.register(name, "py", "obj", f"{page}#{name}")
    return result.format_sphinx()


if __name__ == "__main__":
    folder = Path(__file__).parent
    for project, pages in {"python": PYTHON, "torch": TORCH}.items():
        (folder / f"{project}.inv").write_bytes(inventory(project, pages))
