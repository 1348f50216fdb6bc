"""Three threads that compute in Python: one lock for all of them.

Each asks for it so seldom that it sleeps meanwhile, however long others keep it from a core once it is awake.
"""

import sys
import threading
import time

sys.setswitchinterval(0.02)
END = time.process_time() + 2


def count():
    total = 0
    while time.process_time() < END:
        for i in range(2000):
            total += i * i
    return total


threads = [threading.Thread(target=count) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
