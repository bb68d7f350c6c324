"""Registers and starts the Rust kernel of this project.

    kernel.py install            write the kernel's description into the virtual environment
    kernel.py warm               build both crates once as a notebook cell does, into .evcxr/warm
    kernel.py start CONNECTION   what Jupyter runs: a private copy of .evcxr/warm, then evcxr on it

Without the warm folder, every notebook would build the stack for minutes in its first cell. A copy
shares the large files with the warm folder (hard links: compilers replace them, never write into
them) and owns the small ones, which cargo does write into. Copying two thousand small files takes
a second or two, so a copy for the next kernel is made while this one is in use.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WARM = ROOT / ".evcxr" / "warm"
SPARE = ROOT / ".evcxr" / "spare"
KERNELS = ROOT / ".evcxr" / "kernels"
EVCXR = ROOT / ".evcxr" / "tools" / "bin" / "evcxr_jupyter"
LINKED_FROM = 256 * 1024  # bytes; smaller files are copied
SETTLED = 20  # seconds, by when a first cell has run


def environment():
    """What a cell needs to build, to find its libraries, and to share its cores (see .cargo/config.toml).

    Rust's own library is among them: a cell is linked in a folder one deeper than the one it is loaded from, so the
    relative path that the linker noted misses it wherever project and toolchain lie below one home folder.
    """
    libtorch = ROOT / ".libtorch"
    query = ["rustc", "--print", "target-libdir"]
    rust = subprocess.run(query, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    return {"LIBTORCH": str(libtorch), "LD_LIBRARY_PATH": f"{libtorch / 'lib'}:{rust}", "GOMP_SPINCOUNT": "3000"}


def install():
    # Not named "rust": evcxr rewrites a kernel of that name, and the start below would be lost.
    folder = ROOT / ".venv" / "share" / "jupyter" / "kernels" / "kd_rust"
    folder.mkdir(parents=True, exist_ok=True)
    spec = {
        "argv": [sys.executable, str(Path(__file__).resolve()), "start", "{connection_file}"],
        "display_name": "Rust (kd_lib)",
        "language": "rust",
        "interrupt_mode": "message",
    }
    (folder / "kernel.json").write_text(json.dumps(spec, indent=1) + "\n", encoding="utf8")


def copy_or_link(source, target):
    if os.path.getsize(source) >= LINKED_FROM:
        try:
            os.link(source, target)
            return
        except OSError:
            pass  # another file system: a copy does as well
    shutil.copy2(source, target)


def new_folder():
    KERNELS.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=KERNELS))


def copy_of_warm():
    folder = new_folder()
    if WARM.exists():
        shutil.copytree(WARM, folder, copy_function=copy_or_link, dirs_exist_ok=True, symlinks=True)
    return folder


def make_spare_copy():
    """Makes a copy for the next kernel if there is none; it is complete under its name or absent."""
    if not SPARE.exists():
        folder = copy_of_warm()
        try:
            folder.rename(SPARE)
        except OSError:  # another kernel was quicker
            shutil.rmtree(folder, ignore_errors=True)


def private_copy():
    """A copy of the warm folder for one kernel: the spare one if there is one. Removes the copies of dead kernels first."""
    KERNELS.mkdir(parents=True, exist_ok=True)
    for old in KERNELS.iterdir():
        if not Path("/proc", old.name.split("-")[0]).exists():
            shutil.rmtree(old, ignore_errors=True)
    folder = new_folder()
    try:
        SPARE.rename(folder)  # takes an empty folder's place
        return folder
    except OSError:  # there is none, or another kernel took it
        folder.rmdir()
        return copy_of_warm()


def route_control_port(connection, folder):
    """Routes evcxr's control port; returns a connection file that names another port for evcxr.

    Jupyter's server asks a kernel that is not ready yet again and again, and disconnects at the first reply. evcxr then
    ends while it sends the next reply. The router drops replies that nobody waits for.
    """
    import zmq

    ports = json.loads(connection.read_text())
    with socket.socket() as free:
        free.bind((ports["ip"], 0))
        port = free.getsockname()[1]
    context = zmq.Context.instance()
    front, back = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    front.bind(f"tcp://{ports['ip']}:{ports['control_port']}")
    back.connect(f"tcp://{ports['ip']}:{port}")
    threading.Thread(target=zmq.proxy, args=(front, back), daemon=True).start()
    moved = folder / "connection.json"
    moved.touch(mode=0o600)  # it holds the key that signs messages
    moved.write_text(json.dumps(ports | {"control_port": port}))
    return moved


def below(process):
    """A process's children, their children, and so on."""
    lists = Path(f"/proc/{process}/task").glob("*/children")
    children = [int(child) for listed in lists for child in listed.read_text().split()]
    return children + [further for child in children for further in below(child)]


def end_with(parent):
    """Ends all child processes once the program that started the kernel is gone: a killed program sends no signal."""
    while os.getppid() == parent:
        time.sleep(1)
    for process in below(os.getpid()):
        os.kill(process, signal.SIGKILL)


def start(connection):
    os.environ.update(environment())
    os.environ.setdefault("EVCXR_CONFIG_DIR", str(ROOT / "notebooks" / "tools" / "evcxr"))
    if "EVCXR_TMPDIR" in os.environ:  # the folder is given: it is being warmed
        os.execv(EVCXR, [str(EVCXR), "--control_file", connection])
    folder = private_copy()
    later = threading.Timer(SETTLED, make_spare_copy)
    later.daemon = True
    later.start()
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    try:
        connection = route_control_port(Path(connection), folder)
        code = subprocess.call([EVCXR, "--control_file", connection], env=os.environ | {"EVCXR_TMPDIR": str(folder)})
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.flush()
    os._exit(code)  # the thread at the control port waits for ever


def warm():
    """Runs one cell with the dependency lines that all notebooks share."""
    from jupyter_client.manager import start_new_kernel

    fresh = WARM.with_name("warming")
    if WARM.exists():
        WARM.rename(fresh)  # what has not changed since is not built again
    fresh.mkdir(parents=True, exist_ok=True)
    shutil.copy2(ROOT / "Cargo.lock", fresh / "Cargo.lock")  # the versions that the tests ran with
    os.environ["EVCXR_TMPDIR"] = str(fresh)
    manager, client = start_new_kernel(kernel_name="kd_rust", cwd=str(ROOT / "notebooks"), startup_timeout=120)
    try:
        cell = ':dep kd_lib = { path = "../kd_lib" }\n:dep kd_notebook = { path = "support" }\nprintln!("both crates: {}", !kd_notebook::plot::side_by_side(&[]).is_empty());'
        printed = []
        client.execute_interactive(cell, timeout=1800, output_hook=lambda m: printed.append(m["content"].get("text", str(m["content"]))))
        if not any("both crates: true" in text for text in printed):
            sys.exit("the notebook kernel could not build kd_lib and kd_notebook:\n" + "".join(printed))
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
    for old in (SPARE, WARM):
        shutil.rmtree(old, ignore_errors=True)
    fresh.rename(WARM)
    make_spare_copy()


if __name__ == "__main__":
    {"install": install, "warm": warm, "start": start}[sys.argv[1]](*sys.argv[2:])
