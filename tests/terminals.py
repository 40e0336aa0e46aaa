"""`spike` on a terminal of a given width."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def heed_ctrl_c():
    """As on a terminal: a shell has its jobs in the background, and what they start, ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def session(columns, arguments, cwd, interrupt_after=None, is_stdout_too=False, **environment):
    """`spike` on a terminal of this width: exit status, what it wrote to stdout and to the terminal.

    Args:
        interrupt_after: Ctrl-C once this was written to the terminal.
        is_stdout_too: stdout is the terminal, too; else a pipe.
    """
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    env = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
    env |= {"TERM": "xterm-256color", "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-m", "spikecore", *arguments]
    process = subprocess.Popen(
        command,
        env=env,
        cwd=cwd,
        stdin=follower,
        stdout=follower if is_stdout_too else subprocess.PIPE,
        stderr=follower,
        text=True,
        preexec_fn=heed_ctrl_c,
    )
    os.close(follower)
    written = b""
    while True:
        try:
            part = os.read(leader, 1 << 16)
        except OSError:  # Linux ends a terminal that nobody holds any more with an error
            break
        if not part:
            break
        written += part
        if interrupt_after and interrupt_after.encode() in written:
            process.send_signal(signal.SIGINT)
            interrupt_after = None
    os.close(leader)
    out, _ = process.communicate(timeout=600)
    return process.returncode, out, written.decode().replace("\r\n", "\n")


def plain(text):
    """As it stands on the screen in the end, without what was drawn over, as far as lines go."""
    return [line.rpartition("\r")[2].rstrip() for line in ANSI.sub("", text).splitlines()]
