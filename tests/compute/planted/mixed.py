"""One thread that computes: no class of its own without counters of the processor."""

import time

import numpy as np

rows = np.random.default_rng(1).random((300, 300), dtype=np.float32)
end = time.thread_time() + 1.5
while time.thread_time() < end:
    for _ in range(10):
        rows @ rows
    sum(i * i for i in range(3000))
