"""Each step waits for what another process found."""

import multiprocessing
import time

import numpy as np


def other(connection):
    while connection.recv() is not None:
        time.sleep(0.01)
        connection.send(1.0)


def main():
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=other, args=(there,), daemon=True)
    process.start()
    rows = np.random.default_rng(1).random((300, 300), dtype=np.float32)
    for _ in range(120):
        rows @ rows
        here.send(1.0)
        here.recv()
    here.send(None)
    process.join(5)


main()
