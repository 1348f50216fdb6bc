"""Three threads that compute in Python: one lock for all of them."""

import threading
import time

END = time.monotonic() + 2


def count():
    total = 0
    while time.monotonic() < END:
        for i in range(2000):
            total += i * i
    return total


threads = [threading.Thread(target=count) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
