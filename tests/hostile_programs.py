"""Programs that try to pass without being right, to outlive their limits, or to harm the host.

Each is a body that runs both as a program and inside the function that is called. It knows SECRET (a file of the host
that holds what must be printed and returned), NEIGHBOUR (a process of the same user), PORT (a listening socket),
LETTERS (the path of a datagram socket), and `show(text)`, which prints a text and has it returned. Most of what they
raise on the way is caught for them.
"""

from __future__ import annotations

import textwrap

SEARCHED = r"expected-[0-9a-f]{32}"
HOSTILE = {
    "fork bomb": """
        while True:
            try: os.fork()
            except OSError: pass
    """,
    "8 GB": "x = bytearray(8 << 30)",
    "memory in many processes": """
        for _ in range(64):
            try:
                if os.fork() == 0: break
            except OSError: break
        x = []
        while True: x.append(bytearray(1 << 24))
    """,
    "endless output": "while True: os.write(1, b'x' * 65536); os.write(2, b'x' * 65536)",
    "endless output on every descriptor": """
        while True:
            for fd in range(64):
                try: os.write(fd, b'{}\\n' * 10000)
                except OSError: pass
    """,
    "endless loop": "while True: pass",
    "loop that catches everything": """
        for s in range(1, 65):
            try: signal.signal(s, signal.SIG_IGN)
            except (OSError, ValueError): pass
        while True:
            try:
                while True: pass
            except BaseException: pass
    """,
    "sleeping": "time.sleep(1000)",
    "network": """
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_INET, kind) as s: s.connect(('127.0.0.1', PORT)); s.send(b'x')
    """,
    "reading outside": """
        for path in (SECRET, '/proc/1/root' + SECRET, '/proc/self/cwd/../..' + SECRET, '../..' + SECRET):
            try: show(open(path).read())
            except OSError: pass
    """,
    "writing outside": """
        for path in (SECRET, '/usr/x', '/etc/x'):
            try: open(path, 'w').write('changed')
            except OSError: pass
    """,
    "killing the parent": """
        for kill, pid in ((os.kill, os.getppid()), (os.kill, NEIGHBOUR), (os.kill, -1), (os.killpg, 0)):
            try: kill(pid, 9)
            except OSError: pass
    """,
    "os._exit(0)": "os._exit(0)",
    "printing passed": """
        print('passed'); print('OK'); print(True)
        for fd in range(1, 10):
            try: os.write(fd, b'{"asked": true}\\n{"units": [], "gone": "", "detail": ""}\\n')
            except OSError: pass
    """,
    "exit handlers": """
        import atexit
        atexit.register(os._exit, 0); atexit.register(print, 'passed')
        sys.exit(0)
    """,
    "closing everything": "os.closerange(0, 256)",
    "an object that equals everything": """
        class Any(str):
            __eq__ = lambda *_: True
            __ne__ = lambda *_: False
            __hash__ = str.__hash__
        show(Any('x'))
    """,
    "patched comparison": """
        import builtins, json, operator
        json.dumps = lambda *a, **k: '{"id": 0, "value": true}'
        builtins.isinstance = builtins.all = builtins.any = operator.eq = lambda *_: True
        for module in list(sys.modules.values()):
            for name in ('encode', 'decode', 'same_value', 'same_output', 'send'):
                if hasattr(module, name): setattr(module, name, lambda *a, **k: True)
    """,
    "reading the harness": f"""
        import gc
        for o in gc.get_objects():
            text = repr(o)[:10000] if isinstance(o, (dict, list, str)) else ''
            for found in re.findall('{SEARCHED}', text): show(found)
        frame = sys._getframe()
        while frame:
            for v in list(frame.f_locals.values()):
                for found in re.findall('{SEARCHED}', repr(v)[:100000]): show(found)
            frame = frame.f_back
    """,
    "reading all memory": f"""
        for line in open('/proc/self/maps'):
            a, b = (int(n, 16) for n in line.split()[0].split('-'))
            try:
                with open('/proc/self/mem', 'rb', 0) as f:
                    f.seek(a)
                    for found in re.findall(b'{SEARCHED}', f.read(b - a)): show(found.decode())
            except (OSError, ValueError, OverflowError): pass
    """,
    "reading the test file": f"""
        for top in ('.', '/tmp', '/proc/self/fd', '/proc/1', '/dev/shm', '/var', '/home', '/root'):
            for where, _, names in os.walk(top):
                for name in names:
                    try: text = open(os.path.join(where, name)).read(1 << 20)
                    except (OSError, ValueError): continue
                    for found in re.findall('{SEARCHED}', text): show(found)
    """,
    "background daemon": """
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.closerange(0, 64)
                time.sleep(1000)
            os._exit(0)
    """,
    "symlinks": """
        for make in (lambda: os.symlink(SECRET, 'way'), lambda: show(open('way').read()),
                     lambda: os.symlink('/', 'top'), lambda: show(open('top' + SECRET).read()),
                     lambda: os.replace('way', 'job.json'), lambda: open('job.json', 'w').write('x'),
                     lambda: os.link(SECRET, 'hard'), lambda: show(open('hard').read())):
            try: make()
            except OSError: pass
    """,
    "shared memory": """
        ctypes.CDLL(None).shmget(1, 1 << 30, 0o1600)
        open('/dev/shm/r1kit-hostile', 'w').write('x')
    """,
    "tracing": """
        libc = ctypes.CDLL(None)
        for pid in (1, os.getppid(), NEIGHBOUR):
            for request in (16, 0x4206, 4): libc.ptrace(request, pid, 0, 0)
    """,
    "new namespaces": """
        libc = ctypes.CDLL(None)
        libc.unshare(0x10000000 | 0x20000)
        libc.mount(b'none', b'/tmp', b'tmpfs', 0, None)
        libc.setns(0, 0)
        for change in (lambda: os.setuid(0), lambda: os.chroot('/proc/1/root')):
            try: change()
            except OSError: pass
    """,
    "filling the disk": """
        for n in range(10 ** 9):
            open(f'/tmp/{n}', 'wb').write(bytes(1 << 20))
    """,
    "filling the inodes": """
        for n in range(10 ** 9):
            open(f'/tmp/{n}', 'wb').close()
    """,
    "threads": """
        import threading
        while True: threading.Thread(target=time.sleep, args=(1000,)).start()
    """,
    "reading ahead and answering all": """
        ahead = b''
        for fd in (0, 3, 4, 5, 6, 7):
            try: os.set_blocking(fd, False); ahead += os.read(fd, 1 << 20)
            except OSError: pass
        for found in re.findall(b'expected-[0-9a-f]+', ahead): show(found.decode())
        for fd in range(1, 10):
            for n in range(50):
                try: os.write(fd, b'{"id": %d, "value": true}\\n{"hello": 1}\\n{"value": "passed"}\\n' % n)
                except OSError: break
    """,
    "asking back": """
        for fd in range(1, 10):
            for n in range(3):
                try: os.write(fd, b'{"do": "call", "on": %d, "args": []}\\n{"do": "get", "on": 0, "name": "x"}\\n' % n)
                except OSError: break
    """,
    "deep data": """
        for fd in range(1, 10):
            try: os.write(fd, b'{"value": ' + b'[' * 60000 + b'\\n')
            except OSError: pass
    """,
    "crash": "sys.setrecursionlimit(10 ** 9); ctypes.string_at(0)",
    "letters to the host": """
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            for s in socket.socketpair(socket.AF_UNIX, kind):
                for use in (lambda: s.sendto(b'x', LETTERS), lambda: (s.connect(LETTERS), s.send(b'x'))):
                    try: use()
                    except OSError: pass
    """,
    "standing back for its own": """
        for change in (lambda: os.nice(19), lambda: os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))):
            try: change()
            except OSError: pass
        while True:
            try: os.fork()
            except OSError: pass
    """,
    "deep recursion": """
        sys.setrecursionlimit(10 ** 9)
        def down(): return down()
        down()
    """,
    "text that is none": """
        os.write(1, bytes(range(256)) * 100)
        print('passed', chr(0), flush=True)
        raise KeyError(chr(0xd800) + chr(0) + 'passed')
    """,
    "leaving while it is loaded": "sys.exit('passed')",
    "exceptions that are none": """
        class Passed(BaseException):
            __eq__ = lambda *_: True
            def __str__(self): raise self
        raise Passed()
    """,
    "an exception that ends loops": "raise StopIteration('passed')",
    "threads that answer later": """
        import threading
        def later():
            while True:
                for fd in range(1, 10):
                    try: os.write(fd, b'{"id": 0, "value": "passed"}\n')
                    except OSError: pass
        for _ in range(3): threading.Thread(target=later, daemon=True).start()
    """,
    "signal handlers": """
        def handler(*_): os.write(1, b'passed'); os._exit(0)
        for s in (signal.SIGPROF, signal.SIGALRM, signal.SIGXCPU, signal.SIGTERM): signal.signal(s, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        time.sleep(1000)
    """,
    "running a shell": """
        os.system('cat ' + SECRET)
        os.execv('/bin/sh', ['sh', '-c', 'echo passed; cat ' + SECRET])
    """,
}
PRELUDE = """
import ctypes, os, re, signal, socket, sys, time
ctypes.CDLL(None).prctl(15, MARK.encode())  # its name, by which its processes are found
RESULT = []
def show(text):
    RESULT.append(text)
    print(text, flush=True)
def hostile():
    try:
BODY
    except (OSError, ValueError, AttributeError, MemoryError, RuntimeError) as error:
        if isinstance(error, RecursionError): raise
    return RESULT[-1] if RESULT else 'passed'
f = lambda x: hostile()
if __name__ == '__main__': print(hostile())
"""


def program(name: str, **known: object) -> str:
    """A hostile program that knows what is given."""
    body = textwrap.indent(textwrap.dedent(HOSTILE[name]).strip(), " " * 8)
    return "\n".join(f"{key} = {value!r}" for key, value in known.items()) + PRELUDE.replace("BODY", body)
