"""The programs of the probes. `{...}` is filled in with facts of the host, such as a port or the path of a secret."""

from __future__ import annotations

# Before every program. `attempt` reports one attempt; a program that prints "done" at the end has made them all.
ATTEMPT = """
import os, sys
def attempt(name, function, *arguments, seen="SUCCEEDED"):
    try:
        result = function(*arguments)
    except BaseException as error:
        print(name, "refused:", type(error).__name__, error)
    else:
        print(name, seen, repr(result)[:60])
"""
NETWORK = """
import socket
def reach(kind, family, address):
    with socket.socket(family, kind) as made:
        made.settimeout(2)
        made.connect(address)
        made.send(b"x")
attempt("tcp", reach, socket.SOCK_STREAM, socket.AF_INET, ("127.0.0.1", {port}))
attempt("udp", reach, socket.SOCK_DGRAM, socket.AF_INET, ("127.0.0.1", {port}), seen="sent into the void")
attempt("abstract socket", reach, socket.SOCK_STREAM, socket.AF_UNIX, chr(0) + {abstract!r})
attempt("socket in a file", reach, socket.SOCK_STREAM, socket.AF_UNIX, {socket!r})
attempt("letter to a file", reach, socket.SOCK_DGRAM, socket.AF_UNIX, {letters!r})
pair = lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
attempt("letter through a pair", lambda: pair()[0].sendto(b"x", {letters!r}))
print("done")
"""
READ = """
for path in [{secret!r}, "/etc/passwd", "/etc/hostname", "/proc/{neighbour}/environ", "/proc/sysrq-trigger"]:
    attempt("read " + path, lambda: open(path, "rb").read(1) or 1 / 0)
for path in [{folder!r}, {home!r}, "/proc/{neighbour}/root"]:
    # on the way to an interpreter below the home folder there is nothing else
    attempt("list " + path, lambda: set(os.listdir(path)) - ({shared!r} if path == {home!r} else set()) or 1 / 0)
print("done")
"""
WRITE = """
for folder in [{folder!r}, "/", "/usr", "/usr/lib", "/dev", "/dev/shm", "/var/tmp", "/run", "/etc", {home!r}]:
    attempt("write in " + folder, lambda: open(os.path.join(folder, "r1kit-probe"), "w"))
for path in [{secret!r}, "/usr/bin/env"]:
    attempt("change mode of " + path, os.chmod, path, 0o700)
    attempt("truncate " + path, os.truncate, path, 0)
    attempt("touch " + path, os.utime, path, (0, 0))
attempt("link", os.symlink, "/", "/usr/r1kit-probe")
attempt("read through a link", lambda: (os.symlink({secret!r}, "/tmp/way"), open("/tmp/way").read()))
attempt("write through a link", lambda: open("/tmp/way", "w"))
print("done")
"""
PROCESSES = """
import time
made = 0
try:
    while made < 200:
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
        made += 1
except OSError as error:
    print("after", made, "processes:", error)
print("SUCCEEDED" if made > 16 else "done")
"""
THREADS = """
import threading, time
made = 0
try:
    while made < 200:
        threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
        made += 1
except RuntimeError as error:
    print("after", made, "threads:", error)
print("SUCCEEDED" if made > 16 else "done", flush=True)
os._exit(0)
"""
POWER = """
def status():
    return dict(line.split(":", 1) for line in open("/proc/self/status"))
try:
    found = status()
except OSError:  # Landlock hides /proc too
    found = {{"CapEff": "0", "CapBnd": "0", "NoNewPrivs": "1"}}
print("capabilities", found["CapEff"].strip(), "uid", os.getuid())
if int(found["CapEff"], 16) or os.geteuid() == 0 or found["NoNewPrivs"].strip() != "1":
    print("SUCCEEDED", os.geteuid(), found["NoNewPrivs"])
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def power(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
attempt("new user namespace", power, "unshare", 0x10000000)
attempt("mount", power, "mount", b"none", b"/tmp", b"tmpfs", 0, None)
attempt("setuid", os.setuid, 0)
attempt("chroot", os.chroot, "/tmp")
attempt("trace", power, "ptrace", 16, {neighbour}, 0, 0)
print("done")
"""
SIGNALS = """
attempt("kill a neighbour", os.kill, {neighbour}, 9)
attempt("kill all", os.kill, -1, 9, seen="none but its own")
print("done")
"""
MEMORY = """
attempt("2 GB", lambda: len(bytearray(2 << 30)))
print("done")
"""
HIDDEN_MEMORY = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
attempt("memfd", os.memfd_create, "x")
def shared():
    if libc.shmget(0, 1 << 30, 0o1600) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
attempt("System V memory", shared)
print("done")
"""
DISK = """
def fill():
    for number in range(100):
        with open("/tmp/%d" % number, "wb") as file:
            file.write(bytes(1 << 20))
attempt("100 MB of files", fill)
print("done")
"""
NEIGHBOURLY = """
import ctypes, fcntl
libc = ctypes.CDLL(None, use_errno=True)
def watch():
    if libc.inotify_init1(0) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
attempt("watch", watch)
attempt("lock", lambda: fcntl.flock(os.open(os.__file__, os.O_RDONLY), fcntl.LOCK_SH))
attempt("stand back", lambda: open("/proc/self/autogroup", "w").write("19"))
print("done")
"""
