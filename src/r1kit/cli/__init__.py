"""The command line: parse arguments, call the layers below, print results to stdout, progress and errors to stderr.

The files here import the standard library only, so `--help` is quick: a command imports what it needs when it runs.
"""

from __future__ import annotations

import io
import os
import shlex
import sys
import traceback
from collections.abc import Sequence

from r1kit.cli.parser import parser
from r1kit.store import StoreError

# A user can fix these, so they become one message. Any other exception is a bug of ours and keeps its traceback.
USER_ERRORS = (ValueError, StoreError, OSError, FloatingPointError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status: 0 done, 1 failed, 2 wrong usage, 128 + n stopped by signal n.

    For `verify` and `score`, a verifier, reward or option that does not exist is wrong usage too.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    options = parser().parse_args(arguments)
    if "" not in sys.path:
        sys.path.append("")  # the current folder, for dotted paths; last, so that its files shadow no package
    if isinstance(sys.stdout, io.TextIOWrapper):  # model text may have characters that the terminal cannot show
        sys.stdout.reconfigure(errors="replace")
    try:
        if getattr(options, "allow_code", None):
            from r1kit.models.folder_code import allow

            allow(options.allow_code)
        status: int | None = options.command(options)
        if sys.stdout is not None:  # None if the caller closed it
            sys.stdout.flush()  # inside the try: a full disk shows here
        return status or 0
    except KeyboardInterrupt as stop:
        is_kept = hasattr(options, "keeps_in") and getattr(options, options.keeps_in) is not None
        hint = f"\nfinished work is kept; to resume: {shlex.join(['r1kit', *arguments])}" if is_kept else ""
        print(f"{_message(stop) or 'stopped'}{hint}", file=sys.stderr)
        return 128 + getattr(stop, "signum", 2)
    except BrokenPipeError:  # `r1kit plan ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains again at exit
        return 1
    except SystemExit as stop:  # in a loss, task or recipe of the user's own: a status of 0 would say that all is done
        notes = _message(stop).removeprefix(str(stop))
        print(f"r1kit: error: your code called sys.exit({stop.code!r}) and ended the command{notes}", file=sys.stderr)
        return 1
    except USER_ERRORS as error:
        if options.debug:
            traceback.print_exc()
        else:
            print(f"r1kit: error: {_message(error)}", file=sys.stderr)
        from r1kit.settings import SettingsError  # imports pydantic, so only now

        is_usage = hasattr(options, "settings_are_usage") and isinstance(error, SettingsError)
        return 2 if is_usage else 1


def _message(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.strerror:  # without Python's "[Errno 2]"
        text = ": ".join(filter(None, [str(error.filename or ""), error.strerror]))
    return "\n".join([text, *getattr(error, "__notes__", [])]).strip()
