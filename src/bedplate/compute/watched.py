"""Work of a limited process under the sampler, and under torch's profiler where it uses torch.

It goes on until it ends or its time is over. The process then answers with what was seen, not with what was made.
"""

import _thread
import contextlib
import importlib.util
import json
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from bedplate.compute.sampler import Sampler
from bedplate.compute.task import Result

SAMPLES, TRACE = "samples.json", "trace.json"
_PATIENCE = 2.0
"""Seconds that the work may stay in compiled code when its time is over; then its trace is lost."""


class Watch:
    """One piece of work, watched for at most ``seconds``: of rows that arrive, and again of the code that gets them.

    ``answer`` takes what was seen, once.

    When the time is over a signal ends the work, as only the thread that began a trace can end it; where the work is in
    compiled code and takes no signal, the sampler's thread answers.
    """

    def __init__(self, seconds: float, scratch: Path, answer: Callable[[Result], None]) -> None:
        self._seconds, self._scratch, self._answer = seconds, scratch, answer
        self._sampler = Sampler(math.inf, self._over)
        self._ending, self._answering = threading.Event(), threading.Lock()
        self._telling = self._late = False
        self._tracer: Any = None

    def start(self) -> None:
        """Sample from now on, without an end: what imports take is not counted."""
        signal.signal(signal.SIGALRM, self._interrupted)
        self._sampler.start()

    def wait(self) -> None:
        """Rows may arrive now."""
        self._sampler.allow(self._seconds)

    def load(self) -> None:
        """The rows are here, and code is loaded."""
        self._sampler.allow(math.inf)

    def work(self, code: str) -> None:
        """The work begins: trace what torch does, if it is loaded, or ``code`` speaks of it and it is there."""
        if "torch" not in sys.modules and not ("torch" in code and importlib.util.find_spec("torch")):
            self._sampler.allow(self._seconds)
            return
        import torch
        from torch import profiler

        kinds = [profiler.ProfilerActivity.CPU]
        if torch.cuda.is_available():
            kinds.append(profiler.ProfilerActivity.CUDA)
        self._tracer = profiler.profile(activities=kinds, record_shapes=True, with_flops=True)
        self._tracer.start()
        self._sampler.allow(self._seconds)

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """Around each frame that the work itself sends: it is whole before another one begins."""
        self._telling = True
        yield
        self._telling = False
        if self._late:
            self._end()

    def finish(self) -> None:
        """Answer, in the thread of the work."""
        self._ending.set()
        self._sampler.stop()
        files = {}
        if self._tracer is not None:
            self._tracer.stop()
            self._tracer.export_chrome_trace(str(self._scratch / TRACE))
            files[TRACE] = (self._scratch / TRACE).read_bytes()
        self._tell(files)

    def _tell(self, files: dict[str, bytes]) -> None:
        self._answering.acquire()  # for good: the other thread could only say it again
        self._answer(Result(files={SAMPLES: json.dumps(self._sampler.found()).encode(), **files}))

    def _over(self) -> None:
        _thread.interrupt_main(signal.SIGALRM)
        if not self._ending.wait(_PATIENCE):
            self._tell({})
            os._exit(0)

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        if self._telling:
            self._late = True
        elif not self._ending.is_set():
            self._end()

    def _end(self) -> None:
        self.finish()
        os._exit(0)
