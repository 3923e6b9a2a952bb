r"""Exercises to [`minillm.flops`][]: numbers for a given model.

The expected numbers are computed by the chapter. The wrong ones are computed too, from
the mistake that they stand for.
"""

from collections.abc import Callable

from hypothesis import strategies as st

from minillm import flops
from minillm.accounting.cost import TrainingCost
from minillm.exercises.exercise import Exercise, Mistake
from minillm.flops import preset

__all__ = ["EXERCISES"]

TOLERANCE = 1e-3
LLAMA, GPT2 = preset("llama2-7b"), preset("gpt2")
LLAMA_COUNT = flops.param_count(LLAMA)
GPT2_COUNT = flops.forward_flops(GPT2, 1, 1024)
D, LAYERS = 4096, 32  # the width and the depth of Llama 2 7B
XL = 1_557_611_200


def _parameters() -> float:
    return flops.param_count(preset("llama2-7b")).total


def _projections() -> float:
    return flops.forward_flops(preset("llama2-7b"), 1, 1).projections / 32


def _forward() -> float:
    return flops.forward_flops(preset("gpt2"), 1, 1024).total


def _training_step() -> float:
    return flops.training_flops(preset("gpt2"), 512, 1024)


def _training_memory() -> float:
    memory = flops.training_memory(preset("gpt2-xl"), 1, 1)
    return memory.weights + memory.gradients + memory.optimizer


def _kv_cache() -> float:
    return flops.inference_memory(preset("llama3-8b"), 1, 8192).kv_cache


def _run(per_token: float = 6.0, mfu: float = 0.4) -> TrainingCost:
    return flops.training_cost(
        per_token * 70e9 * 1.4e12,
        peak_flops=312e12,
        utilization=mfu,
        n_chips=2048,
        dollars_per_chip_hour=2.0,
    )


def _days() -> float:
    return _run().days


def _dollars() -> float:
    return _run().dollars


def _number(
    name: str,
    *,
    title: str,
    why: str,
    minutes: int,
    answer: tuple[Callable[..., object], ...],
    reference: Callable[[], float],
    mistakes: tuple[tuple[str, str, Callable[[], float]], ...],
    hints: tuple[str, str, str],
) -> Exercise:
    """An exercise that asks for one number."""
    return Exercise(
        name=f"flops.{name}",
        title=title,
        why=why,
        minutes=minutes,
        answer=answer,
        reference=reference,
        inputs=st.just(()),
        tolerance=TOLERANCE,
        mistakes=tuple(Mistake(*mistake) for mistake in mistakes),
        hints=hints,
    )


EXERCISES = (
    _number(
        "parameters",
        title="Count the parameters",
        why="The first thing that is said of a model, and its cost in everything else "
        "follows from it.",
        minutes=10,
        answer=(flops.param_count,),
        reference=_parameters,
        mistakes=(
            (
                "forgot the head",
                "Embedding and head are two matrices, each vocabulary times width.",
                lambda: LLAMA_COUNT.total - LLAMA_COUNT.head,
            ),
            (
                "forgot embedding and head",
                "Vocabulary times width, twice: 262 million that belong to no layer.",
                lambda: LLAMA_COUNT.non_embedding,
            ),
            (
                "two matrices in the feed-forward network",
                "SwiGLU has three: in, gate, out.",
                lambda: LLAMA_COUNT.total - LLAMA_COUNT.ffn // 3,
            ),
            (
                "2d² for 4d²",
                "Attention has four matrices: queries, keys, values *and* output.",
                lambda: LLAMA_COUNT.total - 2 * LAYERS * D * D,
            ),
            (
                "forgot the output projection",
                "Attention has four matrices: queries, keys, values *and* output.",
                lambda: LLAMA_COUNT.total - LAYERS * D * D,
            ),
        ),
        hints=(
            "A layer first: four matrices of attention, three of the feed-forward "
            "network.",
            "4 d² + 3 d d_ff for each layer.",
            "Add the embedding and the head, vocabulary times d each.",
        ),
    ),
    _number(
        "projections",
        title="Four products for one token",
        why="A famous table has 2d² here where 8d² belong, and with it a conclusion "
        "that does not hold.",
        minutes=5,
        answer=(flops.forward_flops, flops.products, flops.matmul_flops),
        reference=_projections,
        mistakes=(
            (
                "MAC for FLOP",
                "A multiplication and an addition are two operations: 2d² for each.",
                lambda: 4 * D * D,
            ),
            (
                "2d² for 8d²",
                "That is one projection; there are four of them.",
                lambda: 2 * D * D,
            ),
            (
                "forgot the output",
                "What the heads bring home goes through a matrix too.",
                lambda: 6 * D * D,
            ),
            (
                "all layers",
                "One layer is asked for.",
                lambda: 8 * D * D * LAYERS,
            ),
        ),
        hints=(
            "What does one vector times one square matrix cost?",
            "d results, each a sum of d products: d multiplications, d additions.",
            "That is 2d², and there are four.",
        ),
    ),
    _number(
        "forward",
        title="A forward pass",
        why="Every figure about training and serving begins with this one.",
        minutes=20,
        answer=(flops.forward_flops, flops.products, flops.matmul_flops),
        reference=_forward,
        mistakes=(
            (
                "forgot the head",
                "The logits are a product too, and in a small model a quarter of all.",
                lambda: GPT2_COUNT.layers,
            ),
            (
                "MAC for FLOP",
                "A multiplication and an addition are two operations.",
                lambda: GPT2_COUNT.total / 2,
            ),
            (
                "embedding counted as a product",
                "Nobody multiplies by a one-hot vector: a row is looked up.",
                lambda: GPT2_COUNT.total + GPT2_COUNT.head,
            ),
            (
                "forgot scores and mixing",
                "Queries times keys, and weights times values, have no parameters, but "
                "they are products: 4 T² d in each layer.",
                lambda: GPT2_COUNT.total - GPT2_COUNT.attention,
            ),
            (
                "scores without mixing",
                "The weights are multiplied with the values too, at the same price.",
                lambda: GPT2_COUNT.total - GPT2_COUNT.attention / 2,
            ),
            (
                "2d² for 8d²",
                "A layer has four projections, 2d² a token each.",
                lambda: GPT2_COUNT.total - 0.75 * GPT2_COUNT.projections,
            ),
            (
                "three matrices in the feed-forward network",
                "GPT-2 has two; the third came with SwiGLU.",
                lambda: GPT2_COUNT.total + GPT2_COUNT.ffn / 2,
            ),
        ),
        hints=(
            "A product (m, n) × (n, p) takes 2mnp.",
            "In a layer, for T tokens: projections 8Td², feed-forward 4T d d_ff, "
            "scores 2T²d, mixing 2T²d.",
            "Twelve layers, and the head: 2 T d V.",
        ),
    ),
    _number(
        "training_step",
        title="A step of training",
        why="To plan a run, multiply this by the number of steps.",
        minutes=10,
        answer=(flops.training_flops, flops.forward_flops, flops.products),
        reference=_training_step,
        mistakes=(
            (
                "forward only",
                "The backward pass owes two products for each one of the forward pass.",
                lambda: 512 * GPT2_COUNT.total,
            ),
            (
                "backward as cheap as forward",
                "The gradient of a product takes two products: by X and by W.",
                lambda: 1024 * GPT2_COUNT.total,
            ),
            (
                "one sequence",
                "The batch has 512 of them.",
                lambda: 3 * GPT2_COUNT.total,
            ),
            (
                "forgot the head",
                "The logits are a product too.",
                lambda: 3 * 512 * GPT2_COUNT.layers,
            ),
            (
                "MAC for FLOP",
                "A multiplication and an addition are two operations.",
                lambda: 1.5 * 512 * GPT2_COUNT.total,
            ),
        ),
        hints=(
            "What does the backward pass of one product Y = XW have to compute?",
            "Two gradients, each a product of the same size as the one forward.",
            "Three times the forward pass, times 512.",
        ),
    ),
    _number(
        "training_memory",
        title="Bytes before the first batch",
        why="A run that does not fit stops, with a message that names a number and no "
        "reason.",
        minutes=5,
        answer=(flops.training_memory,),
        reference=_training_memory,
        mistakes=(
            (
                "forgot AdamW",
                "It keeps two running means for every weight.",
                lambda: 8 * XL,
            ),
            (
                "three numbers for each weight",
                "There are four: the weight, its gradient, and *two* means.",
                lambda: 12 * XL,
            ),
            (
                "numbers for bytes",
                "A number in float32 takes four bytes.",
                lambda: 4 * XL,
            ),
            (
                "bits for bytes",
                "32 bits are four bytes.",
                lambda: 4 * 32 * XL,
            ),
        ),
        hints=(
            "What is kept for each weight? There are four numbers.",
            "The weight, its gradient, and the two means of AdamW.",
            "Four numbers of four bytes each.",
        ),
    ),
    _number(
        "kv_cache",
        title="What a conversation keeps",
        why="With many readers at once it is this that fills the memory, not the "
        "weights.",
        minutes=10,
        answer=(flops.inference_memory,),
        reference=_kv_cache,
        mistakes=(
            (
                "a key for every query head",
                "Four query heads share one head of keys and values: 8, not 32.",
                lambda: 2 * 32 * 8192 * 4096 * 2,
            ),
            (
                "keys without values",
                "Both are kept.",
                lambda: 32 * 8192 * 1024 * 2,
            ),
            (
                "one layer",
                "Each of the 32 layers keeps its own.",
                lambda: 2 * 8192 * 1024 * 2,
            ),
            (
                "four bytes for a number",
                "16 bits are two bytes.",
                lambda: 2 * 32 * 8192 * 1024 * 4,
            ),
        ),
        hints=(
            "How wide is a head? And how many heads of keys are there?",
            "For each token and layer: one key and one value of 8 × 128 numbers.",
            "2 × 32 layers × 8192 tokens × 1024 numbers × 2 bytes.",
        ),
    ),
    _number(
        "days",
        title="How long it takes",
        why="FLOPs are abstract; days are what a plan is made of.",
        minutes=10,
        answer=(flops.training_cost, flops.six_nd),
        reference=_days,
        mistakes=(
            (
                "the peak is never reached",
                "Of 312 TFLOP/s only 40 % are: divide by 0.4 too.",
                lambda: _run(mfu=1.0).days,
            ),
            (
                "forward only",
                "2ND is the forward pass; training takes three times that.",
                lambda: _run(2.0).days,
            ),
            (
                "MAC for FLOP",
                "A multiplication and an addition are two operations: 6ND, not 3ND.",
                lambda: _run(3.0).days,
            ),
            (
                "one chip",
                "There are 2048, which work side by side.",
                lambda: 2048 * _run().days,
            ),
            (
                "hours for days",
                "A day has 24 hours.",
                lambda: 24 * _run().days,
            ),
            (
                "the utilization on the wrong side",
                "A slower chip takes longer: divide by 0.4.",
                lambda: 0.16 * _run().days,
            ),
        ),
        hints=(
            "First the FLOPs: 6 × parameters × tokens.",
            "All chips together do 2048 × 312e12 × 0.4 in a second.",
            "Seconds, divided by 3600 and by 24.",
        ),
    ),
    _number(
        "dollars",
        title="What it costs",
        why="The figure that decides whether anybody trains it.",
        minutes=5,
        answer=(flops.training_cost, flops.six_nd),
        reference=_dollars,
        mistakes=(
            (
                "pays for one chip",
                "Each of the 2048 chips costs 2 dollars an hour.",
                lambda: _run().dollars / 2048,
            ),
            (
                "pays by the day",
                "The price is for an hour: days times 24.",
                lambda: _run().dollars / 24,
            ),
            (
                "chip-hours for dollars",
                "An hour of a chip costs two dollars.",
                lambda: _run().chip_hours,
            ),
            (
                "the peak is never reached",
                "Of 312 TFLOP/s only 40 % are: that makes it dearer.",
                lambda: _run(mfu=1.0).dollars,
            ),
        ),
        hints=(
            "How many hours does one chip work?",
            "Chip-hours are FLOPs / (312e12 × 0.4 × 3600), however many chips share "
            "them.",
            "Times 2 dollars.",
        ),
    ),
)
