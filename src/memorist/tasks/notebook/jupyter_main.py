"""Runs in the sandbox, as a program of its own that is started from its text: a Jupyter kernel with limits on memory
and files.

Arguments: the connection file, and bytes of memory and of one file.
"""

import ctypes
import platform
import resource
import signal
import sys

from ipykernel.kernelapp import IPKernelApp

# By the system call itself: what the C library calls is denied in the sandbox.
number = {"x86_64": 160, "aarch64": 164}[platform.machine()]
for what, value in ((resource.RLIMIT_AS, int(sys.argv[2])), (resource.RLIMIT_FSIZE, int(sys.argv[3]))):
    if ctypes.CDLL(None).syscall(number, what, (ctypes.c_ulong * 2)(value, value)):
        raise OSError(f"limit {what} cannot be set")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
# The rest of what ipykernel knows of its command line would be ours.
IPKernelApp.launch_instance(argv=["-f", sys.argv[1], "--quiet"])
