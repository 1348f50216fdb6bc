"""Trainings with bottlenecks of their own, and ones that do not end when they are asked to."""

import ctypes
import json
import time
import zlib

import numpy as np

from bedplate.compute.task import Result
from bedplate.pipeline import train

PACKED = zlib.compress(np.random.default_rng(1).bytes(400_000), 1)


def batches():
    while True:
        for _ in range(4):
            zlib.decompress(PACKED)
        yield np.frombuffer(zlib.decompress(PACKED), np.uint8)[:40_000].reshape(200, 200).astype(np.float32)


@train
def loads(task):
    source = batches()
    while True:
        task.progress("a step")
        rows = next(source)
        rows @ rows.T


@train
def writes(task):
    values = np.random.default_rng(1).random((20, 50)).tolist()
    end = time.process_time() + 3
    while time.process_time() < end:
        json.loads(json.dumps(values))
    return Result()


@train
def computes(task):
    rows = np.random.default_rng(1).random((300, 300), dtype=np.float32)
    while True:
        rows @ rows


@train
def takes_no_signal(task):
    end = time.process_time() + 1.5
    while time.process_time() < end:
        sum(i * i for i in range(3000))
    ctypes.CDLL(None).sleep(60)


@train
def fails(task):
    raise ValueError("no rows")
