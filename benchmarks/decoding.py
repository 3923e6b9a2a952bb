"""How fast does a model of 135 million weights write, in eight bits and in 32?

python -m benchmarks.decoding [PART ...] [--turns N] [--quick] [--cpu]

The shape is that of SmolLM2-135M; the weights are random: no time depends on them.
"""

import copy

import torch

from benchmarks.command import SMOLLM2, main
from benchmarks.measure import Part, Record, peak
from minillm.config import ModelConfig
from minillm.files.eight_bit_files import open_eight_bits
from minillm.inference.decoder import Decoder
from minillm.inference.eight_bit_layers import to_eight_bits
from minillm.inference.eight_bits import fastest
from minillm.model import KVCache, TransformerLM

SHAPE = ModelConfig(49152, 2048, 576, 30, 9, 3, 1536, tie_embeddings=True)
TINY = ModelConfig(512, 640, 64, 2, 4, 2, 128, tie_embeddings=True)
FLOAT = "float32"
# What opens the model and writes two tokens.
OPEN = """
import sys
if sys.argv[2] == "eight":
    from minillm.files.eight_bit_files import open_eight_bits as opener
else:
    from minillm.files.opening import open_model as opener
from minillm.inference.decoder import Decoder
from minillm.generate import generate
model, tokenizer, _ = opener(sys.argv[1])
generate(model, tokenizer.encode("Once"), 2, decoder=Decoder(model))
"""


def _models(record: Record) -> tuple[TransformerLM, TransformerLM]:
    """The same random weights in 32 and in eight bits."""
    torch.manual_seed(0)
    model = TransformerLM(TINY if record.quick else SHAPE).eval().requires_grad_(False)
    return model, to_eight_bits(copy.deepcopy(model))


def tokens(record: Record) -> None:
    """Read one token behind 64 others, with a decoder in eight bits and in 32.

    In eight bits, the way to multiply is the one that is the fastest on this machine.
    """
    model, eight = _models(record)
    prompt = list(range(64))
    programs = {}
    for name, read in ((FLOAT, model), ("eight", eight)):
        decoder, cache = Decoder(read), KVCache(model.config, batch_size=1)
        decoder.read(prompt, cache)

        def step(decoder: Decoder = decoder, cache: KVCache = cache) -> None:
            cache.cut(len(prompt))
            decoder(7, cache)

        programs[name] = step
    found = record.take_turns(programs, 25)
    record.row(
        f"eight bits, {type(fastest()).__name__}",
        *(found["eight"], FLOAT, found[FLOAT]),
        unit="tokens/s",
        amount=1,
        target=("ratio >=", 2.5),
    )


def prompts(record: Record) -> None:
    """Read a prompt of 512 tokens, up to the logits of the next one.

    The peer is the model as it is called, in float32, which computes logits at every
    position. Ours computes the last, and has products in bfloat16 for so many rows.
    """
    model, eight = _models(record)
    ids = list(range(512))
    decoder = Decoder(eight)

    def whole() -> None:
        with torch.inference_mode():
            model(torch.tensor([ids]), KVCache(model.config, 1))[0, -1]

    found = record.take_turns(
        {
            "whole": whole,
            "eight": lambda: decoder.read(ids, KVCache(model.config, 1)),
        },
        5,
    )
    record.row(
        *("eight bits", found["eight"], "all logits, float32", found["whole"]),
        target=("ratio >=", 1.5),
    )


def opened(record: Record) -> None:
    """Open the file of SmolLM2 and write two tokens: the peak of the memory.

    In float32 the weights alone are 538 MB; opening and decoding hold copies of them.
    """
    if record.quick or not SMOLLM2.exists():
        record.not_measured("opening", "it takes `make fixtures`, and half a minute")
        return
    found = {
        name: [peak(OPEN, str(SMOLLM2), name, limit=60) / 1e6]
        for name in ("eight", "float")
    }
    record.row(
        "SmolLM2-135M, Q4_1",
        *(found["eight"], "weights in float32", found["float"]),
        unit="MB",
        target=("ratio >=", 2.5),
    )


def llama(record: Record) -> None:
    """Read one token behind 64 others, the weights from SmolLM2's file of 98 MB.

    Ours opens it in eight bits; llama.cpp computes with the four of the file, for whose
    kind, Q4_1, it has no repacked layout as for Q4_0. It has as many threads, and is
    built for this processor; it is installed by hand, as the package llama-cpp-python.
    """
    if record.quick or not SMOLLM2.exists():
        record.not_measured("llama.cpp", "it takes `make fixtures`")
        return
    with record.optional("llama.cpp"):
        from llama_cpp import Llama

        model = open_eight_bits(SMOLLM2).model
        threads = torch.get_num_threads()
        peer = Llama(str(SMOLLM2), n_ctx=128, n_threads=threads, verbose=False)
        decoder, cache = Decoder(model), KVCache(model.config, batch_size=1)
        prompt = list(range(100, 164))
        decoder.read(prompt, cache)
        peer.eval(prompt)

        def us() -> None:
            cache.cut(len(prompt))
            decoder(700, cache)

        def them() -> None:
            peer.n_tokens = len(prompt)  # what follows is forgotten
            peer.eval([700])

        found = record.take_turns({"us": us, "them": them}, 50)
        record.row(
            *("SmolLM2-135M, Q4_1", found["us"], "llama.cpp", found["them"]),
            unit="tokens/s",
            amount=1,
            target=("ratio >=", 1),
        )


PARTS = {
    "tokens": Part(tokens, 15),
    "llama": Part(llama, 15),
    "prompts": Part(prompts, 15),
    "opened": Part(opened, 30),
}

if __name__ == "__main__":
    main("decoding", __doc__, PARTS)
