"""The filter, run by a small interpreter, so that both architectures are tested wherever this runs."""

import re
import struct
from pathlib import Path

import pytest

from bedplate.isolation.seccomp import _DENIED, _SELF_ONLY, program

PID = 4242
ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
CLONE, PRCTL = {"x86_64": 56, "aarch64": 220}, {"x86_64": 157, "aarch64": 167}


def run(machine: str, number: int, first: int = 0, arch: int | None = None) -> int:
    """What the filter answers to one system call."""
    data = struct.pack("<IIQ6Q", number, ARCH[machine] if arch is None else arch, 0, first, 0, 0, 0, 0, 0)
    lines = list(struct.iter_unpack("<HBBI", program(PID, machine)))
    position, register = 0, 0
    while True:
        code, when, otherwise, k = lines[position]
        position += 1
        if code == 0x20:
            register = struct.unpack_from("<I", data, k)[0]
        elif code == 0x06:
            return k
        else:
            holds = {0x15: register == k, 0x35: register >= k, 0x45: bool(register & k)}[code]
            position += when if holds else otherwise


@pytest.mark.parametrize("machine", ARCH)
def test_listed_calls_are_denied_and_others_are_not(machine):
    column = list(ARCH).index(machine)
    denied = {numbers[column] for numbers in _DENIED.values()} - {None}
    special = {CLONE[machine], PRCTL[machine], 435} | {numbers[column] for numbers in _SELF_ONLY.values()}

    for number in range(470):
        if number not in special:
            assert run(machine, number) == (EPERM if number in denied else ALLOW), number


@pytest.mark.parametrize("machine", ARCH)
def test_threads_are_made_and_processes_are_not(machine):
    assert run(machine, CLONE[machine], 0x3D0F00) == ALLOW  # what pthread_create asks for
    assert run(machine, CLONE[machine], 0x11) == EPERM  # what fork asks for
    assert run(machine, 435) == ENOSYS


@pytest.mark.parametrize("machine", ARCH)
def test_signals_and_limits_reach_only_the_process_itself(machine):
    column = list(ARCH).index(machine)
    for name, (*numbers, zero_is_me) in _SELF_ONLY.items():
        assert run(machine, numbers[column], PID) == ALLOW, name
        assert run(machine, numbers[column], 1) == EPERM, name
        assert run(machine, numbers[column], 0xFFFFFFFF) == EPERM, name
        assert run(machine, numbers[column], 0) == (ALLOW if zero_is_me else EPERM), name


@pytest.mark.parametrize("machine", ARCH)
def test_it_stays_bound_to_its_owner(machine):
    assert run(machine, PRCTL[machine], 1) == EPERM
    assert run(machine, PRCTL[machine], 15) == ALLOW


def test_other_calling_conventions_are_killed():
    assert run("x86_64", 41, arch=0x40000003) == KILL  # 32 bit
    assert run("x86_64", 0x40000000 | 41) == KILL  # x32


HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


@pytest.mark.parametrize("machine", [machine for machine, header in HEADERS.items() if header.exists()])
def test_numbers_are_those_of_the_kernel_headers(machine):
    column = list(ARCH).index(machine)
    text = HEADERS[machine].read_text()
    known = {name: int(n) for name, n in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text)}
    ours = {name: numbers[column] for name, numbers in (_DENIED | _SELF_ONLY).items()}

    assert {name: n for name, n in ours.items() if name in known} == {n: known[n] for n in ours if n in known}
