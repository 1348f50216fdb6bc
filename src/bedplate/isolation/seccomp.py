"""A small seccomp filter by ctypes: what Landlock does not cover.

Landlock denies files and TCP. Unix sockets, UDP, other processes, changes of mode and owner, new processes and the
rarely used doors of the kernel are system calls, and are denied here. What a numerical library needs (threads, memory,
its own signals) stays. Numbers are those of ``asm/unistd.h``, for the two architectures that have Python wheels.
"""

import ctypes
import errno
import os
import platform
import struct

_DENIED: dict[str, tuple[int | None, int | None]] = {
    # network of every family, and io_uring, which opens sockets without the call that is denied
    "socket": (41, 198), "socketpair": (53, 199), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # new processes and programs
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281),
    # other processes
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "tkill": (200, 130),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "move_pages": (279, 239),
    "migrate_pages": (256, 238), "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118), "sched_setattr": (314, 274), "setpriority": (141, 140), "ioprio_set": (251, 30),
    # modes, owners, attributes and times of files: Landlock leaves them to the owner of the file
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "setxattrat": (463, 463), "removexattrat": (466, 466), "utime": (132, None), "utimes": (235, None),
    "utimensat": (280, 88), "futimesat": (261, None), "inotify_init": (253, None), "inotify_init1": (294, 26),
    "fanotify_init": (300, 262), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    # memory shared with others, or that no limit counts
    "shmget": (29, 194), "shmat": (30, 196), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180),
    "memfd_create": (319, 279), "memfd_secret": (447, 447),
    # namespaces and mounts
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "move_mount": (429, 429), "open_tree": (428, 428), "mount_setattr": (442, 442),
    # the machine itself, and kernel surface that no model needs
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "add_key": (248, 217),
    "request_key": (249, 218), "keyctl": (250, 219), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142),
    "swapon": (167, 224), "swapoff": (168, 225), "syslog": (103, 116), "acct": (163, 89), "quotactl": (179, 60),
    "iopl": (172, None), "ioperm": (173, None), "settimeofday": (164, 170), "clock_settime": (227, 112),
    "clock_adjtime": (305, 266), "adjtimex": (159, 171), "sethostname": (170, 161), "setdomainname": (171, 162),
    "personality": (135, 92),
}  # fmt: skip
# Allowed only when the first argument is this very process (or 0, "me", where that is what 0 means).
_SELF_ONLY: dict[str, tuple[int, int, bool]] = {
    "kill": (62, 129, False),
    "tgkill": (234, 131, False),
    "rt_sigqueueinfo": (129, 138, False),
    "rt_tgsigqueueinfo": (297, 240, False),
    "prlimit64": (302, 261, True),
}
_CLONE, _CLONE3, _PRCTL = (56, 220), 435, (157, 167)
_CLONE_THREAD = 0x10000
_PR_SET_PDEATHSIG = 1

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column, AUDIT_ARCH_*
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _ARCH, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data; both machines are little-endian
_SET_MODE_FILTER, _FLAG_TSYNC = 1, 1
_SECCOMP = {"x86_64": 317, "aarch64": 277}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def supported() -> bool:
    """Whether this machine's architecture has a filter here."""
    return platform.machine() in _ARCHITECTURES


def program(pid: int, machine: str) -> bytes:
    """The filter for process ``pid`` as an array of ``struct sock_filter``."""
    column, arch = _ARCHITECTURES[machine]
    refuse, missing = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS
    lines: list[tuple[int, int, int, int]] = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, arch),
        (_RETURN, 0, 0, _KILL),  # a foreign calling convention has other numbers
        (_LOAD, 0, 0, _NUMBER),
    ]
    if machine == "x86_64":
        lines += [(_AT_LEAST, 0, 1, 0x40000000), (_RETURN, 0, 0, _KILL)]  # x32
    for numbers in _DENIED.values():
        if (number := numbers[column]) is not None:
            lines += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, refuse)]
    # clone3 keeps its flags in memory, where no filter can look: libc falls back to clone when it is missing.
    lines += [(_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, missing)]
    lines += [
        (_EQUAL, 0, 4, _CLONE[column]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_ANY_BIT, 0, 1, _CLONE_THREAD),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, refuse),
    ]
    lines += [
        (_EQUAL, 0, 4, _PRCTL[column]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_EQUAL, 0, 1, _PR_SET_PDEATHSIG),
        (_RETURN, 0, 0, refuse),
        (_RETURN, 0, 0, _ALLOW),
    ]
    for *by_machine, zero_is_me in _SELF_ONLY.values():
        lines += [
            (_EQUAL, 0, 5 if zero_is_me else 4, by_machine[column]),
            (_LOAD, 0, 0, _FIRST_ARGUMENT),
            *([(_EQUAL, 1, 0, 0)] if zero_is_me else []),
            (_EQUAL, 0, 1, pid),
            (_RETURN, 0, 0, _ALLOW),
            (_RETURN, 0, 0, refuse),
        ]
    lines.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("<HBBI", *line) for line in lines)


def install(filter_program: bytes) -> None:
    """Put a filter in force for all threads of this process, for good. The caller MUST have set no_new_privs.

    Raises:
        OSError: the kernel refused.
    """
    attributes = _Program(len(filter_program) // 8, filter_program)
    libc = ctypes.CDLL(None, use_errno=True)
    number = ctypes.c_long(_SECCOMP[platform.machine()])
    if libc.syscall(number, ctypes.c_long(_SET_MODE_FILTER), ctypes.c_long(_FLAG_TSYNC), ctypes.byref(attributes)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
