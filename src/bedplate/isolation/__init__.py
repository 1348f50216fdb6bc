"""What holds a process that runs code which is not ours: Landlock, a system call filter, limits; and how to talk to it.

Training (:mod:`bedplate.compute`) and serving (:mod:`bedplate.serve.limited`) start such processes. Nothing here starts
one or knows what it runs.
"""
