r"""A model in eight bits: products of small integers where its matrices were.

**The question.** [`minillm.inference.eight_bits`][] multiplies a row and a matrix of
bytes fast. A model has a hundred matrices. How do you put such products in their
places, so that everything around them may stay as it is?

**Part by part.** An `EightBitLinear` stands where a `Linear` was, under the same name
and of the same shape. So the model, the decoder and what prints them need not be
written again:

>>> from minillm.config import ModelConfig
>>> model = TransformerLM(ModelConfig(50, 8, d_model=32, n_layers=1, n_heads=2))
>>> to_eight_bits(model).blocks[0].attn.o_proj
EightBitLinear(d_in=32, d_out=32)

**Joined.** Queries, keys and values are computed from the same row, and so are the two
inner matrices of a SwiGLU. Such
[`partners`][minillm.inference.eight_bit_layers.partners] are put below each other and
share one product, so a row is prepared once, and one call does the work of three. Each
layer has its rows of the result:

>>> attention = model.blocks[0].attn
>>> attention.k_proj.product is attention.q_proj.product, attention.k_proj.rows
(True, slice(32, 64, None))

Only [the decoder][minillm.inference.decoder] profits: it knows which results belong
together, and calls a product once. A layer called alone computes all rows and keeps its
own. That is right, and wasteful: queries, keys and values called one by one take three
times as long.

`python -m benchmarks.decoding` shows what all this brings.

**Before this:** [`minillm.inference.eight_bits`][].
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from minillm.attention import Linear
from minillm.inference.eight_bits import Rows, Way, fastest
from minillm.inference.quantized import Quantized, quantize
from minillm.model import Embedding, TransformerLM

__all__ = [
    "EightBitEmbedding",
    "EightBitLinear",
    "Product",
    "partners",
    "to_eight_bits",
]


class Product:
    r"""Matrices of eight bits that read the same row, as one: the door to all ways.

    Args:
        matrices: by row, all of the same width; their rows are put below each other.
        way: how to multiply; `None` for the fastest here.

    Examples:
        >>> one = quantize(torch.tensor([[1.27, -0.02]]))
        >>> two = quantize(torch.tensor([[0.0, 2.54]]))
        >>> from minillm.inference.eight_bits import Plain
        >>> y = Product([one, two], Plain())(torch.tensor([[1.0, 10.0]]))
        >>> [round(v, 2) for v in y.flatten().tolist()]
        [1.07, 25.4]
    """

    def __init__(self, matrices: Sequence[Quantized], way: Way | None = None) -> None:
        self.way = fastest() if way is None else way
        levels = torch.cat([matrix.levels for matrix in matrices])
        scale = torch.cat([matrix.scale[:, 0] for matrix in matrices]).float()
        self.shape, self.packed = levels.shape, self.way.pack(levels, scale)

    def __call__(self, x: Rows) -> Float[Tensor, "rows d_out"]:
        """Multiply rows by all of them."""
        return self.way.multiply(self.way.prepare(x), self.packed)

    def added_to(
        self, y: Float[Tensor, "rows d_out"], x: Rows
    ) -> Float[Tensor, "rows d_out"]:
        """The product, added to something."""
        return y + self(x)


class EightBitLinear(nn.Module):
    r"""A [`Linear`][minillm.attention.Linear] that keeps a byte for each weight.

    It cannot be trained, saved or moved to another device.

    Args:
        product: that of its matrix, and perhaps of others.
        rows: which of the rows are its own; `None` for all.

    Examples:
        >>> layer, x = Linear(64, 8), torch.randn(3, 64)
        >>> with torch.no_grad():
        ...     exact = layer(x)
        ...     y = EightBitLinear(Product([quantize(layer.weight)]))(x)
        >>> y.shape, bool((y - exact).norm() < 0.03 * exact.norm())
        (torch.Size([3, 8]), True)
    """

    def __init__(self, product: Product, rows: slice | None = None) -> None:
        super().__init__()
        self.product, self.rows = product, rows or slice(None)
        # Its shape, without numbers: what `print(model)` asks for.
        self.weight = torch.empty(product.shape, device="meta")[self.rows]

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """Multiply each vector along the last axis by the weight."""
        y = self.product(x.flatten(0, -2))[:, self.rows]
        return y.unflatten(0, x.shape[:-1])

    def extra_repr(self) -> str:
        """The sizes, for `print(model)`."""
        return f"d_in={self.weight.shape[1]}, d_out={self.weight.shape[0]}"


class EightBitEmbedding(nn.Module):
    r"""An [`Embedding`][minillm.model.Embedding] that keeps a byte for each number.

    Args:
        matrix: the table, by row.

    Examples:
        >>> weight = torch.tensor([[0.5, 1.0], [0.0, -2.54]])
        >>> table = EightBitEmbedding(quantize(weight))
        >>> [round(y, 2) for y in table(torch.tensor([1])).flatten().tolist()]
        [0.0, -2.54]
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, matrix: Quantized) -> None:
        super().__init__()
        self.register_buffer("weight", matrix.levels)
        self.register_buffer("scale", matrix.scale.float())

    def forward(self, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch d_model"]:
        """Look up the vector of each id."""
        return self.weight[ids] * self.scale[ids]


JOINED = (("q_proj", "k_proj", "v_proj"), ("w1", "w3"))


def partners(name: str) -> tuple[str, ...]:
    """Name the matrices that read the same row as one does.

    Args:
        name: that of its weight in the model.

    Returns:
        The names, its own among them.

    Examples:
        >>> partners("blocks.0.ffn.w3.weight")
        ('blocks.0.ffn.w1.weight', 'blocks.0.ffn.w3.weight')
        >>> partners("blocks.0.ffn.w2.weight")
        ('blocks.0.ffn.w2.weight',)
    """
    where, _, last = name.removesuffix(".weight").rpartition(".")
    group = next((group for group in JOINED if last in group), None)
    return tuple(f"{where}.{n}.weight" for n in group) if group else (name,)


def to_eight_bits(model: TransformerLM, way: Way | None = None) -> TransformerLM:
    r"""Round all matrices of a model to eight bits by row, in place.

    Args:
        model: the model.
        way: how to multiply; `None` for the fastest here.

    Returns:
        The same model. It reads and writes as before, in float32, and can neither
        learn nor be saved.

    Raises:
        ValueError: if it is in eight bits already.

    Examples:
        >>> from minillm.config import ModelConfig
        >>> config = ModelConfig(50, 8, d_model=32, n_layers=1, n_heads=2)
        >>> model, ids = TransformerLM(config), torch.arange(8).unsqueeze(0)
        >>> before = model(ids).detach()
        >>> after = to_eight_bits(model)(ids)
        >>> bool((after - before).norm() < 0.03 * before.norm())
        True
        >>> sum(weight.numel() for weight in model.parameters())  # the norms' gains
        96
        >>> to_eight_bits(model)
        Traceback (most recent call last):
        ValueError: the model is in eight bits already: copy it before you convert it
    """
    if isinstance(model.token_embedding, EightBitEmbedding):
        # Its way of multiplying could not be changed, and nothing would say so.
        raise ValueError(
            "the model is in eight bits already: copy it before you convert it"
        )
    weights = {
        name: weight.detach() for name, weight in model.float().state_dict().items()
    }

    def product(names: tuple[str, ...]) -> Product:
        return Product([quantize(weights[name]) for name in names], way)

    table = quantize(weights["token_embedding.weight"])
    return replace_matrices(model, product, table)


def replace_matrices(
    model: TransformerLM,
    product: Callable[[tuple[str, ...]], Product],
    table: Quantized,
) -> TransformerLM:
    """Put products and a table of eight bits where matrices are, in place.

    Args:
        model: the model.
        product: gives the product of the matrices of these names.
        table: the embedding.

    Returns:
        The same model.
    """
    made: dict[tuple[str, ...], Product] = {}
    start: dict[tuple[str, ...], int] = {}  # the first row that is not taken yet
    for name, part in list(model.named_modules()):
        if not isinstance(part, Linear | Embedding):
            continue
        where, _, last = name.rpartition(".")
        new: nn.Module = EightBitEmbedding(table)
        if isinstance(part, Linear):
            names = partners(f"{name}.weight")
            if names not in made:
                made[names], start[names] = product(names), 0
            end = start[names] + len(part.weight)
            new = EightBitLinear(made[names], slice(start[names], end))
            start[names] = end
        setattr(model.get_submodule(where), last, new)
    return model
