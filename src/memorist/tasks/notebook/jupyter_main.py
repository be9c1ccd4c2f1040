"""Runs in the sandbox, as a program of its own: a Jupyter kernel with limits on memory and files.

Arguments: the connection file, and bytes of memory and of one file.
"""

import resource
import signal
import sys

from ipykernel.kernelapp import IPKernelApp

connection, memory, file = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
resource.setrlimit(resource.RLIMIT_FSIZE, (file, file))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
# The rest of what ipykernel knows of its command line would be ours.
IPKernelApp.launch_instance(argv=["-f", connection, "--quiet"])
