"""One of the processes of `benchmarks.training ddp`, which torchrun starts."""

import statistics
import sys
import time

import torch

from benchmarks.shapes import QUICK, SIZES, trainer
from minillm.training.distributed import joined, rank

if __name__ == "__main__":
    name, threads, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(threads)
    with joined():
        training = trainer((SIZES | QUICK)[name])
        seconds = []
        for _ in range(1 + steps):
            start = time.perf_counter()
            training.step()
            seconds.append(time.perf_counter() - start)
        if rank() == 0:
            print(f"seconds: {statistics.median(seconds[1:])}")
