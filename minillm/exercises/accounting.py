r"""Exercises to [`minillm.flops`][]: formulas for any model of a kind.

The grader asks for many shapes, so that no answer can be copied from what it says of
one. The wrong numbers are computed too, from the mistakes that they stand for.
"""

from collections.abc import Callable

from hypothesis import strategies as st

from minillm import flops
from minillm.exercises.exercise import Exercise, Mistake
from minillm.flops import Architecture, FlopCount

__all__ = ["EXERCISES"]

# Norms and biases may be left out; at these widths they are less than this.
TOLERANCE = 1e-3

vocabularies = st.sampled_from([8_192, 32_000, 50_257])
widths = st.sampled_from([512, 768, 1024, 2048])
depths = st.sampled_from([2, 6, 12, 24])
hidden = st.sampled_from([1_536, 2_048, 3_072, 5_504])
lengths = st.sampled_from([128, 512, 1024])


def _llama(vocab_size: int, d: int, n_layers: int, d_ff: int) -> flops.Architecture:
    return Architecture(vocab_size, 1024, d, n_layers, d // 64, d_ff=d_ff)


def _gpt(vocab_size: int, d: int, n_layers: int, d_ff: int) -> flops.Architecture:
    return Architecture(
        vocab_size, 1024, d, n_layers, d // 64, d_ff=d_ff, mlp_matrices=2
    )


def _parameters(vocab_size: int, d: int, n_layers: int, d_ff: int) -> float:
    return flops.param_count(_llama(vocab_size, d, n_layers, d_ff)).total


def _projections(d: int) -> float:
    return flops.forward_flops(_llama(8_192, d, 1, 2_048), 1, 1).projections


def _count(vocab_size: int, d: int, n_layers: int, d_ff: int, seq: int) -> FlopCount:
    return flops.forward_flops(_gpt(vocab_size, d, n_layers, d_ff), 1, seq)


def _forward(vocab_size: int, d: int, n_layers: int, d_ff: int, seq: int) -> float:
    return _count(vocab_size, d, n_layers, d_ff, seq).total


def _training_step(forward: float, batch_size: int) -> float:
    return 3 * batch_size * forward


def _training_memory(n_params: int) -> float:
    return 4 * 4 * n_params


def _kv_cache(n_layers: int, n_heads: int, n_kv_heads: int, d: int, seq: int) -> float:
    config = Architecture(8_192, 1024, d, n_layers, n_heads, n_kv_heads)
    return flops.inference_memory(config, 1, seq).kv_cache


def _days(
    n_params: float, tokens: float, n_chips: int, peak: float, used: float
) -> float:
    return flops.training_cost(
        flops.six_nd(n_params, tokens),
        peak_flops=peak,
        utilization=used,
        n_chips=n_chips,
        dollars_per_chip_hour=1.0,
    ).days


def _dollars(days: float, n_chips: int, price: float) -> float:
    return 24 * days * n_chips * price


Wrong = Callable[..., float]
model = st.tuples(vocabularies, widths, depths, hidden)
read = st.tuples(vocabularies, widths, depths, hidden, lengths)
run = st.tuples(
    st.sampled_from([7e9, 13e9, 70e9]),
    st.sampled_from([3e11, 1.4e12, 2e12]),
    st.sampled_from([64, 256, 2048]),
    st.sampled_from([312e12, 989.4e12]),
    st.sampled_from([0.2, 0.4, 0.5]),
)


def _part(change: Callable[[FlopCount], float]) -> Wrong:
    """A wrong forward pass, from the parts of the right one."""
    return lambda *shape: change(_count(*shape))


EXERCISES = (
    Exercise(
        name="flops.parameters",
        tolerance=TOLERANCE,
        title="Count the parameters",
        why="The first thing that is said of a model, and its cost in everything else "
        "follows from it.",
        minutes=10,
        answer=(flops.param_count,),
        reference=_parameters,
        inputs=model,
        examples=((32_000, 4096, 32, 11_008),),
        mistakes=(
            Mistake(
                "forgot the head",
                "Embedding and head are two matrices, each vocabulary times width.",
                lambda v, d, n, f: _parameters(v, d, n, f) - v * d,
            ),
            Mistake(
                "forgot embedding and head",
                "Vocabulary times width, twice: parameters that belong to no layer.",
                lambda v, d, n, f: _parameters(v, d, n, f) - 2 * v * d,
            ),
            Mistake(
                "two matrices in the feed-forward network",
                "SwiGLU has three: in, gate, out.",
                lambda v, d, n, f: _parameters(v, d, n, f) - n * d * f,
            ),
            Mistake(
                "2d² for 4d²",
                "Attention has four matrices: queries, keys, values *and* output.",
                lambda v, d, n, f: _parameters(v, d, n, f) - 2 * n * d * d,
            ),
            Mistake(
                "forgot the output projection",
                "Attention has four matrices: queries, keys, values *and* output.",
                lambda v, d, n, f: _parameters(v, d, n, f) - n * d * d,
            ),
        ),
        hints=(
            "A layer first: four matrices of attention, three of the feed-forward "
            "network.",
            "4 d² + 3 d d_ff for each layer.",
            "Add the embedding and the head, vocabulary times d each.",
        ),
    ),
    Exercise(
        name="flops.projections",
        tolerance=TOLERANCE,
        title="Four products for one token",
        why="A famous table has 2d² here where 8d² belong, and with it a conclusion "
        "that does not hold.",
        minutes=5,
        answer=(flops.forward_flops, flops.products, flops.matmul_flops),
        reference=_projections,
        inputs=st.tuples(widths),
        mistakes=(
            Mistake(
                "MAC for FLOP",
                "A multiplication and an addition are two operations: 2d² for each.",
                lambda d: 4 * d * d,
            ),
            Mistake(
                "2d² for 8d²",
                "That is one projection; there are four of them.",
                lambda d: 2 * d * d,
            ),
            Mistake(
                "forgot the output",
                "What the heads found goes through a matrix too.",
                lambda d: 6 * d * d,
            ),
        ),
        hints=(
            "What does one vector times one square matrix cost?",
            "d results, each a sum of d products: d multiplications, d additions.",
            "That is 2d², and there are four.",
        ),
    ),
    Exercise(
        name="flops.forward",
        tolerance=TOLERANCE,
        title="A forward pass",
        why="Every figure about training and serving begins with this one.",
        minutes=20,
        answer=(flops.forward_flops, flops.products, flops.matmul_flops),
        reference=_forward,
        inputs=read,
        examples=((50_257, 768, 12, 3_072, 1_024),),
        mistakes=(
            Mistake(
                "forgot the head",
                "The logits are a product too, and in a small model a quarter of all.",
                _part(lambda count: count.layers),
            ),
            Mistake(
                "MAC for FLOP",
                "A multiplication and an addition are two operations.",
                _part(lambda count: count.total / 2),
            ),
            Mistake(
                "embedding counted as a product",
                "Nobody multiplies by a one-hot vector: a row is looked up.",
                _part(lambda count: count.total + count.head),
            ),
            Mistake(
                "forgot scores and mixing",
                "Queries times keys, and weights times values, have no parameters, but "
                "they are products: 4 T² d in each layer.",
                _part(lambda count: count.total - count.attention),
            ),
            Mistake(
                "scores without mixing",
                "The weights are multiplied with the values too, at the same price.",
                _part(lambda count: count.total - count.attention / 2),
            ),
            Mistake(
                "2d² for 8d²",
                "A layer has four projections, 2d² a token each.",
                _part(lambda count: count.total - 0.75 * count.projections),
            ),
            Mistake(
                "three matrices in the feed-forward network",
                "GPT-2 has two; the third came with SwiGLU.",
                _part(lambda count: count.total + count.ffn / 2),
            ),
        ),
        hints=(
            "A product (m, n) × (n, p) takes 2mnp.",
            "In a layer, for T tokens: projections 8Td², feed-forward 4T d d_ff, "
            "scores 2T²d, mixing 2T²d.",
            "All layers, and the head: 2 T d V.",
        ),
    ),
    Exercise(
        name="flops.training_step",
        tolerance=TOLERANCE,
        title="A step of training",
        why="To plan a run, multiply this by the number of steps.",
        minutes=10,
        answer=(flops.training_flops, flops.forward_flops, flops.products),
        reference=_training_step,
        inputs=st.tuples(st.sampled_from([1e9, 3e11]), st.sampled_from([2, 8, 512])),
        mistakes=(
            Mistake(
                "forward only",
                "The backward pass owes two products for each one of the forward pass.",
                lambda forward, batch: batch * forward,
            ),
            Mistake(
                "backward as cheap as forward",
                "The gradient of a product takes two products: by X and by W.",
                lambda forward, batch: 2 * batch * forward,
            ),
            Mistake(
                "one sequence",
                "The batch has many of them.",
                lambda forward, batch: 3 * forward,
            ),
            Mistake(
                "backward three times as dear",
                "Two products backward for each one forward: three in all, not four.",
                lambda forward, batch: 4 * batch * forward,
            ),
        ),
        hints=(
            "What does the backward pass of one product Y = XW have to compute?",
            "Two gradients, each a product of the same size as the one forward.",
            "Three times the forward pass, times the sequences of the batch.",
        ),
    ),
    Exercise(
        name="flops.training_memory",
        tolerance=TOLERANCE,
        title="Bytes before the first batch",
        why="A run that does not fit stops, with a message that names a number and no "
        "reason.",
        minutes=5,
        answer=(flops.training_memory,),
        reference=_training_memory,
        inputs=st.tuples(st.integers(10**6, 10**9)),
        mistakes=(
            Mistake(
                "forgot AdamW",
                "It keeps two running means for every weight.",
                lambda n: 8 * n,
            ),
            Mistake(
                "three numbers for each weight",
                "There are four: the weight, its gradient, and *two* means.",
                lambda n: 12 * n,
            ),
            Mistake(
                "numbers for bytes",
                "A number in float32 takes four bytes.",
                lambda n: 4 * n,
            ),
            Mistake(
                "bits for bytes",
                "32 bits are four bytes.",
                lambda n: 4 * 32 * n,
            ),
        ),
        hints=(
            "What is kept for each weight? There are four numbers.",
            "The weight, its gradient, and the two means of AdamW.",
            "Four numbers of four bytes each.",
        ),
    ),
    Exercise(
        name="flops.kv_cache",
        tolerance=TOLERANCE,
        title="What a conversation keeps",
        why="With many readers at once it is this that fills the memory, not the "
        "weights.",
        minutes=10,
        answer=(flops.inference_memory,),
        reference=_kv_cache,
        inputs=st.tuples(
            depths,
            st.sampled_from([16, 32]),
            st.sampled_from([2, 4, 8]),
            st.sampled_from([1024, 2048, 4096]),
            lengths,
        ),
        examples=((32, 32, 8, 4096, 8192),),
        mistakes=(
            Mistake(
                "a key for every query head",
                "Several query heads share one head of keys and values.",
                lambda n, h, kv, d, t: 4 * n * t * d,
            ),
            Mistake(
                "keys without values",
                "Both are kept.",
                lambda n, h, kv, d, t: 2 * n * t * d * kv // h,
            ),
            Mistake(
                "one layer",
                "Each layer keeps its own.",
                lambda n, h, kv, d, t: 4 * t * d * kv // h,
            ),
            Mistake(
                "four bytes for a number",
                "16 bits are two bytes.",
                lambda n, h, kv, d, t: 8 * n * t * d * kv // h,
            ),
        ),
        hints=(
            "How wide is a head? And how many heads of keys are there?",
            "For each token and layer: one key and one value of n_kv_heads × (d / "
            "n_heads) numbers.",
            "2 × layers × tokens × those numbers × 2 bytes.",
        ),
    ),
    Exercise(
        name="flops.days",
        tolerance=TOLERANCE,
        title="How long it takes",
        why="FLOPs are abstract; days are what a plan is made of.",
        minutes=10,
        answer=(flops.training_cost, flops.six_nd),
        reference=_days,
        inputs=run,
        examples=((70e9, 1.4e12, 2048, 312e12, 0.4),),
        mistakes=(
            Mistake(
                "the peak is never reached",
                "Only a part of the peak is: divide by the utilization too.",
                lambda n, t, chips, peak, used: used * _days(n, t, chips, peak, used),
            ),
            Mistake(
                "forward only",
                "2ND is the forward pass; training takes three times that.",
                lambda *given: _days(*given) / 3,
            ),
            Mistake(
                "MAC for FLOP",
                "A multiplication and an addition are two operations: 6ND, not 3ND.",
                lambda *given: _days(*given) / 2,
            ),
            Mistake(
                "one chip",
                "All of them work side by side.",
                lambda n, t, chips, peak, used: chips * _days(n, t, chips, peak, used),
            ),
            Mistake(
                "hours for days",
                "A day has 24 hours.",
                lambda *given: 24 * _days(*given),
            ),
            Mistake(
                "the utilization on the wrong side",
                "A slower chip takes longer: divide by the utilization.",
                lambda n, t, chips, peak, used: (
                    used**2 * _days(n, t, chips, peak, used)
                ),
            ),
        ),
        hints=(
            "First the FLOPs: 6 × parameters × tokens.",
            "All chips together do n_chips × peak × utilization in a second.",
            "Seconds, divided by 3600 and by 24.",
        ),
    ),
    Exercise(
        name="flops.dollars",
        tolerance=TOLERANCE,
        title="What it costs",
        why="The figure that decides whether anybody trains it.",
        minutes=5,
        answer=(flops.training_cost,),
        reference=_dollars,
        inputs=st.tuples(
            st.sampled_from([3.0, 26.6, 90.0]),
            st.sampled_from([64, 256, 2048]),
            st.sampled_from([1.5, 2.0, 4.0]),
        ),
        mistakes=(
            Mistake(
                "pays for one chip",
                "Each of the chips costs that much an hour.",
                lambda days, chips, price: 24 * days * price,
            ),
            Mistake(
                "pays by the day",
                "The price is for an hour: days times 24.",
                lambda days, chips, price: days * chips * price,
            ),
            Mistake(
                "chip-hours for dollars",
                "An hour of a chip has its price.",
                lambda days, chips, price: 24 * days * chips,
            ),
        ),
        hints=(
            "How many hours does one chip work?",
            "Chip-hours are 24 × days × chips.",
            "Times the price of an hour.",
        ),
    ),
)
