"""Runs Python as an ordinary user where the tests run as root, whose interpreter may lie in a private home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
USER = 1_800_000_000  # nobody's

# Gives every folder that only root may enter a public stand-in that holds the needed folders, then becomes the user.
OPEN_UP = f"""
import ctypes, os, sys
user, needed = int(sys.argv[1]), sys.argv[2].split(":")
libc = ctypes.CDLL(None, use_errno=True)
def must(result):
    if result != 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
def mount(source, target, kind, flags):
    must(libc.mount(source and source.encode(), target.encode(), kind and kind.encode(), ctypes.c_ulong(flags), None))
must(libc.unshare(0x20000))
mount(None, "/", None, 16384 | 1 << 18)
held = {{path: os.open(path, os.O_PATH) for path in needed}}
closed = {{top for path in needed for top in ("/".join(path.split("/")[:n]) for n in range(2, path.count("/") + 1))
          if not os.stat(top).st_mode & 1}}
for top in sorted(closed):
    if os.path.isdir(top): mount("tmpfs", top, "tmpfs", 0); os.chmod(top, 0o755)
for path, fd in held.items():
    if any(path.startswith(top + "/") for top in closed):
        os.makedirs(path, exist_ok=True)
        mount(f"/proc/self/fd/{{fd}}", path, None, 4096 | 16384)
if user:
    os.setgroups([]); os.setresgid({USER}, {USER}, {USER}); os.setresuid(user, user, user)
os.execv(sys.executable, [sys.executable, "-c", sys.argv[3]])
"""


def run_as(code: str, *, root: bool = False, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run code with our interpreter as an ordinary user (or root), able to read it. OSError of the machine: rc 1."""
    needed = ":".join(dict.fromkeys(map(os.path.realpath, (sys.base_prefix, sys.prefix, str(ROOT)))))
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    user = 0 if root else USER
    command = [sys.executable, "-c", code] if os.geteuid() else [sys.executable, "-c", OPEN_UP, str(user), needed, code]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, cwd=cwd, env=environment)
