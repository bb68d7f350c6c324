"""latency.py [ROUNDS]: seconds from asking for a kernel to the first cell's output, ours beside Python's.

Ours compiles two `:dep` lines and calls the crate; Python's imports torch. One at a time, three at once, and after an
edit of the crate (a comment at the end of lib.rs, taken out again). A kernel stays open for half a minute, as a reader's
would: meanwhile the launcher makes the next kernel's folder. Three at once find that folder for one of them.
"""

import os
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from jupyter_client.manager import start_new_kernel

from kernel import ROOT, SETTLED

OURS = ':dep kd_lib = { path = "../kd_lib" }\n:dep kd_notebook = { path = "support" }\nprintln!("{}", kd_lib::tch::Tensor::from_slice(&[1i64]).numel());'
PYTHON = "import torch\nprint(torch.tensor([1]).numel())"


def first_output(kernel, cell):
    start = time.time()
    manager, client = start_new_kernel(kernel_name=kernel, cwd=str(ROOT / "notebooks"), startup_timeout=180)
    seen = []
    try:
        note = lambda message: seen.append(time.time()) if message["msg_type"] == "stream" and message["content"]["name"] == "stdout" else None
        client.execute_interactive(cell, timeout=600, output_hook=note)
        time.sleep(SETTLED if kernel == "kd_rust" else 0)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    return seen[0] - start


def edited():
    path = ROOT / "kd_lib" / "src" / "lib.rs"
    before, times = path.read_text(encoding="utf8"), path.stat()
    try:
        path.write_text(before + "// touched\n", encoding="utf8")
        return first_output("kd_rust", OURS)
    finally:
        path.write_text(before, encoding="utf8")
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # or every kernel would build the crate anew


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    pairs = [(first_output("kd_rust", OURS), first_output("python3", PYTHON)) for _ in range(rounds)]
    ours, python = zip(*pairs)
    print(f"one kernel, median of {rounds}: ours {statistics.median(ours):.1f} s, Python with torch {statistics.median(python):.1f} s")
    for name, kernel, cell in [("ours", "kd_rust", OURS), ("Python", "python3", PYTHON)]:
        with ThreadPoolExecutor(3) as pool:
            three = list(pool.map(lambda _: first_output(kernel, cell), range(3)))
        print(f"three at once, {name}: the last after {max(three):.1f} s")
    print(f"after an edit of the crate: {edited():.1f} s")


if __name__ == "__main__":
    main()
