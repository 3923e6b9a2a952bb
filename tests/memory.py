"""The memory of a process, for programs that tests and benchmarks start."""

# Its peak so far, in megabytes. On Linux, what `getrusage` says of a child process
# includes the peak of its parent, which here has imported half of the world.
PEAK = """
import json, re, sys, time
from pathlib import Path

def peak():
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) / 1024
"""
