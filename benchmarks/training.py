"""Training speed of the demo's model: tokens per second, and FLOPs against the peak.

The peak is what a product of two large matrices reaches on this machine in the same
run. `python -m benchmarks.training`
"""

import statistics

import numpy as np
import torch

from minillm.demo import SHAPE
from minillm.flops import mfu, training_flops
from minillm.model import TransformerLM
from minillm.train import Progress, TrainConfig, measure_peak_flops, train

WARM_UP, STEPS = 10, 60


def main() -> None:
    """Train for some steps and print the median speed."""
    torch.manual_seed(0)
    tokens = np.random.default_rng(0).integers(0, SHAPE.vocab_size, 100_000)
    config = TrainConfig(steps=WARM_UP + STEPS)
    times: list[float] = []

    def report(progress: Progress) -> None:
        times.append(progress.seconds)

    peak = measure_peak_flops()
    train(TransformerLM(SHAPE), tokens, config, report=report)
    steps = np.diff(times[WARM_UP - 1 :])
    seconds = statistics.median(steps)
    flops = training_flops(SHAPE, config.batch_size, SHAPE.context_length)
    n_tokens = config.batch_size * SHAPE.context_length
    print(f"threads            {torch.get_num_threads()}")
    print(f"peak               {peak / 1e9:.0f} GFLOP/s in float32")
    print(f"a training step    {1e3 * seconds:.1f} ms, fastest {1e3 * min(steps):.1f}")
    print(f"tokens per second  {n_tokens / seconds:,.0f}")
    print(f"MFU                {mfu(flops, seconds, peak):.0%}")


if __name__ == "__main__":
    main()
