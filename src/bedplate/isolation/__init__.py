"""What holds a process that runs code which is not ours: Landlock, a system call filter, limits; and how to talk to it.

Training (:mod:`bedplate.compute`), serving (:mod:`bedplate.serve.limited`) and sources (:mod:`bedplate.data.sources`)
run such processes, the latter two by :class:`.worker.Worker`. Nothing here knows what they run.
"""
