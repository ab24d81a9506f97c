"""System call filters (classic BPF) that refuse calls which computation never needs and exploits often use.

Under bubblewrap the filter is a second wall behind namespaces, and closes memory that no rlimit counts (memfd, System
V). Under Landlock, which covers files only, it is the wall against network, processes and signals.
"""

from __future__ import annotations

import errno
import platform
import struct


def _numbers(text: str) -> dict[str, tuple[int | None, int | None]]:
    """A table `name x86_64 aarch64, ...`; "-" if the architecture lacks the call. From 424 on, both are the same."""
    rows = (entry.split() for entry in text.split(","))
    return {name: (None if x86 == "-" else int(x86), None if arm == "-" else int(arm)) for name, x86, arm in rows}


_CALLS = _numbers("""
    socket 41 198, ptrace 101 117, process_vm_readv 310 270, process_vm_writev 311 271, kcmp 312 272,
    bpf 321 280, perf_event_open 298 241, userfaultfd 323 282, keyctl 250 219, add_key 248 217,
    request_key 249 218, mount 165 40, umount2 166 39, pivot_root 155 41, unshare 272 97, setns 308 268,
    memfd_create 319 279, shmget 29 194, shmat 30 196, shmctl 31 195, msgget 68 186, semget 64 190,
    mq_open 240 180, kexec_load 246 104, init_module 175 105, finit_module 313 273, delete_module 176 106,
    swapon 167 224, swapoff 168 225, reboot 169 142, settimeofday 164 170, clock_settime 227 112,
    clock_adjtime 305 266, adjtimex 159 171, sethostname 170 161, setdomainname 171 162, syslog 103 116,
    acct 163 89, quotactl 179 60, name_to_handle_at 303 264, open_by_handle_at 304 265, chroot 161 51,
    fanotify_init 300 262, personality 135 92, io_uring_setup 425 425, io_uring_enter 426 426,
    io_uring_register 427 427, open_tree 428 428, move_mount 429 429, fsopen 430 430, fsconfig 431 431,
    fsmount 432 432, fspick 433 433, pidfd_open 434 434, pidfd_getfd 438 438, process_madvise 440 440,
    mount_setattr 442 442, memfd_secret 447 447
""")
# Readable files of the host could also be watched and locked.
_CALLS |= _numbers("inotify_init 253 -, inotify_init1 294 26, inotify_add_watch 254 27, flock 73 32")
# A program that gives way to its own processes would look like a program on a busy machine.
_CALLS |= _numbers("""
    setpriority 141 140, ioprio_set 251 30, sched_setscheduler 144 119, sched_setparam 142 118,
    sched_setattr 314 274
""")
# Refused without namespaces: other processes, and changes to the user's own files that Landlock does not cover.
_ALONE = _numbers("""
    fork 57 -, vfork 58 -, clone 56 220, execve 59 221, execveat 322 281, kill 62 129, tkill 200 130,
    tgkill 234 131, rt_sigqueueinfo 129 138, rt_tgsigqueueinfo 297 240, pidfd_send_signal 424 424, chmod 90 -,
    fchmod 91 52, fchmodat 268 53, chown 92 -, fchown 93 55, lchown 94 -, fchownat 260 54, utime 132 -,
    utimes 235 -, futimesat 261 -, utimensat 280 88, setxattr 188 5, lsetxattr 189 6, fsetxattr 190 7,
    removexattr 197 14, lremovexattr 198 15, fremovexattr 199 16, truncate 76 45, ioctl 16 29,
    sched_setaffinity 203 122, migrate_pages 256 238, move_pages 279 239, connect 42 203, bind 49 200,
    msgsnd 69 189, msgrcv 70 188, msgctl 71 187, semop 65 193, semctl 66 191, semtimedop 220 192
""")
_STREAM, _NONBLOCK, _CLOEXEC = 1, 0o4000, 0o2000000
# Call, argument, values: refused if the argument is "in" the values, or "not" one of them.
_ARGUMENTS: tuple[tuple[tuple[int, int], int, str, tuple[int, ...]], ...] = (
    ((157, 167), 0, "in", (1,)),  # prctl: PR_SET_PDEATHSIG would undo the death with the parent
    ((302, 261), 0, "not", (0,)),  # prlimit64 of other processes
    # socketpair: a datagram socket can send to any socket of the host that has a path
    ((53, 199), 1, "not", (_STREAM, _STREAM | _NONBLOCK, _STREAM | _CLOEXEC, _STREAM | _NONBLOCK | _CLOEXEC)),
    # fcntl: F_SETOWN, F_SETSIG, F_SETOWN_EX send signals; F_SETLK(W), F_OFD_SETLK(W), F_SETLEASE lock, F_NOTIFY watches
    ((72, 25), 1, "in", (8, 10, 15, 6, 7, 37, 38, 1024, 1026)),
)
_CLONE3 = 435
_NEWEST = 449  # calls after futex_waitv (fchmodat2, setxattrat ...) are not listed here, so they give ENOSYS
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000


def supported() -> bool:
    """Whether the system call numbers of this machine are known."""
    return platform.machine() in _ARCHITECTURES


def program(*, alone: bool) -> bytes:
    """The filter for this machine; `alone` is for processes without namespaces.

    Refused calls give EPERM. clone3 gives ENOSYS, so that the C library falls back to clone. Raises ValueError on an
    architecture with unknown call numbers.
    """
    if not supported():
        known = ", ".join(_ARCHITECTURES)
        raise ValueError(f"the system call numbers of {platform.machine()} are unknown: expected one of {known}")
    architecture, column = _ARCHITECTURES[platform.machine()]
    code = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),  # 32-bit calls have other numbers
        (_LOAD, 0, 0, 0),
        (_AT_LEAST, 0, 1, _NEWEST + 1),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
    ]
    if alone:
        code += [(_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
        for numbers, argument, kind, values in _ARGUMENTS:
            code += _argument(numbers[column], argument, kind, values)
    for pair in (_CALLS | _ALONE if alone else _CALLS).values():
        if (number := pair[column]) is not None:
            code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | errno.EPERM)]
    return b"".join(struct.pack("=HBBI", *line) for line in [*code, (_RETURN, 0, 0, _ALLOW)])


def _argument(number: int, argument: int, kind: str, values: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
    """Refuse a call by the low 32 bits of an argument; the accumulator holds the call number before and after."""
    refuse = (_RETURN, 0, 0, _ERRNO | errno.EPERM)
    body = [(_LOAD, 0, 0, 16 + 8 * argument)]
    if kind == "in":
        for value in values:
            body += [(_EQUAL, 0, 1, value), refuse]
    else:  # a match jumps past the other comparisons and the refusal
        body += [(_EQUAL, len(values) - place, 0, value) for place, value in enumerate(values)] + [refuse]
    body.append((_LOAD, 0, 0, 0))
    return [(_EQUAL, 0, len(body), number), *body]
