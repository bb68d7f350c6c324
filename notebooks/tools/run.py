"""Executes notebooks by the project's kernel and fails loudly.

    run.py [--profile smoke|quick|full] [--data FOLDER] [NOTEBOOK ...]

The kernel is configured as for people: a panic keeps their variables, and Jupyter reports the cell as a success.
The executed copies go to notebooks/out/PROFILE, never over the sources. A cell fails the run when it
panics, prints an error on stderr, shows `()`, exceeds its time, or is tagged `figure` and shows no SVG. A notebook
whose inputs (its text, the crate, the recipes, the corpus, the profile) have not changed since it last
passed is not executed again. Under `smoke` two are executed side by side: compiling cells is most of it.
"""

import argparse
import hashlib
import os
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from queue import Empty

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbclient.util import run_sync
from nbconvert.preprocessors import CoalesceStreamsPreprocessor

NOTEBOOKS = Path(__file__).resolve().parents[1]
ROOT = NOTEBOOKS.parent
SECONDS = {"smoke": 600, "quick": 6 * 3600, "full": 96 * 3600}
SIDE_BY_SIDE = {"smoke": 2}
END = "end of the notebook"


class Failed(Exception):
    pass


def fingerprint(notebook, corpus, profile):
    """A hash of all that decides what a notebook shows; outputs that it already holds do not."""
    cells = [cell.source for cell in nbformat.read(notebook, as_version=4).cells]
    digest = hashlib.sha256(f"{profile}\n{os.environ.get('KD_SEEDS')}\n{cells}\n".encode())
    crates = [path for crate in [ROOT / "kd_lib", NOTEBOOKS / "support"] for path in [crate / "Cargo.toml", *sorted(crate.rglob("src/**/*.rs"))]]
    sources = [ROOT / "Cargo.lock", *crates, NOTEBOOKS / "published.csv", NOTEBOOKS / "search.csv", NOTEBOOKS / "ablation.csv", *sorted((NOTEBOOKS / "recipes").rglob("*.toml"))]
    for path in [*sources, *sorted(p for p in corpus.glob("*.*") if p.is_file())]:
        digest.update(f"{path.name}\n".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def inspect(index, cell, late):
    """Raises on what Jupyter would let pass; `late` is what came on stderr after the cell was done."""
    where = f"cell {index}"
    for output in cell.outputs:
        if output.output_type == "error":
            raise Failed(f"{where}: {output.ename}: {output.evalue}")
    stderr = "".join("".join(o.get("text", "")) for o in cell.outputs if o.get("name") == "stderr") + late
    if stderr.strip():
        raise Failed(f"{where} wrote to stderr:\n{stderr.strip()}")
    shown = "".join(str(o.get("data", {})) for o in cell.outputs)
    if any(o.get("data", {}).get("text/plain", "").strip() == "()" for o in cell.outputs):
        raise Failed(f"{where} shows (): end it with a semicolon")
    if "figure" in cell.metadata.get("tags", []) and "<svg" not in shown:
        raise Failed(f"{where} is tagged as a figure and shows none")


class Client(NotebookClient):
    """Prints what cells print while they print it, behind the notebook's number."""

    number = ""

    def process_message(self, msg, cell, cell_index):
        if msg["msg_type"] == "stream":
            for line in msg["content"]["text"].splitlines():
                print(f"  {datetime.now():%H:%M:%S}  {self.number}  {line}", flush=True)
        return super().process_message(msg, cell, cell_index)


def late_stderr(client, patience=0.5, until=None, cell=None, index=None):
    """What a cell wrote to stderr and the kernel forwarded only after it had called the cell finished. What it forwarded
    of stdout so late joins the cell's outputs."""
    text = ""
    while until is None or until not in text:
        try:
            message = run_sync(client.kc.get_iopub_msg)(timeout=patience)
        except Empty:
            break
        if message["msg_type"] != "stream":
            continue
        if message["content"]["name"] == "stderr":
            text += message["content"]["text"]
        elif cell is not None:
            client.process_message(message, cell, index)
    return text


def last_words(client):
    """All that is still on its way on stderr when the last cell is done: a line is sent after it, and waited for."""
    client.kc.execute(f'eprintln!("{END}");')
    text = late_stderr(client, patience=60, until=END)
    if END not in text:
        raise Failed("the kernel's stderr broke off")
    return text.split(END)[0].strip()


def execute(path, target, seconds):
    """Runs every cell; the copy with its outputs is written even when one fails."""
    notebook = nbformat.read(path, as_version=4)
    client = Client(notebook, timeout=seconds, kernel_name="kd_rust", startup_timeout=180, record_timing=False, resources={"metadata": {"path": str(NOTEBOOKS)}})
    client.number = path.stem[:2]
    try:
        with client.setup_kernel():
            for index, cell in enumerate(notebook.cells):
                if cell.cell_type != "code":
                    continue
                client.execute_cell(cell, index)
                inspect(index, cell, late_stderr(client, cell=cell, index=index))
            if late := last_words(client):
                raise Failed(f"a cell wrote to stderr:\n{late}")
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        # evcxr gives the compiler's words as outputs of the cell, not in the error.
        words = [output.evalue for cell in notebook.cells for output in cell.get("outputs", []) if output.output_type == "error"]
        raise Failed("\n".join([str(error).strip(), *words])) from error
    finally:
        target.parent.mkdir(parents=True, exist_ok=True)
        joined, _ = CoalesceStreamsPreprocessor().preprocess(notebook, {})
        nbformat.write(joined, target)


def in_order(paths):
    """The story, then all tables, then what explains them: the explaining notebooks find their rows trained."""
    return sorted(paths, key=lambda path: (path.stem[:2] not in ("00", "10"), path.name))


def bring(path, profile, corpus):
    """Executes a notebook unless it passed before with the same inputs; says whether it passes."""
    target = NOTEBOOKS / "out" / profile / path.name
    stamp = target.with_suffix(".passed")
    inputs = fingerprint(path, corpus, profile)
    kept = all(path.exists() for path in [stamp, target, Path(os.environ["KD_CHECKPOINTS"]) / "runs"])
    if kept and stamp.read_text() == inputs:
        print(f"{path.name}: unchanged since it passed, see {target.relative_to(ROOT)}", flush=True)
        return True
    print(f"{path.name}: profile {profile}, corpus {corpus.name}", flush=True)
    stamp.unlink(missing_ok=True)  # the copy is about to change
    try:
        execute(path, target, SECONDS[profile])
    except Failed as error:
        print(f"{path.name}: FAILED: {error}", file=sys.stderr, flush=True)
        return False
    stamp.write_text(inputs)
    print(f"{path.name}: passed, see {target.relative_to(ROOT)}", flush=True)
    return True


def checkpoints(profile):
    """Where runs live: those that mean nothing in a folder of their own, out of the reader's tables."""
    folder = ROOT / "checkpoints"
    if profile == "smoke":
        folder = folder / "smoke"
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            (folder / "e5-small").symlink_to("../e5-small")
    return str(folder)


def end_with(runner):
    """Ends this worker, and its kernel with it, once the runner is gone: a killed program sends no signal."""

    def watch():
        while os.getppid() == runner:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--profile", default="smoke", choices=SECONDS)
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "sample")
    options = parser.parse_args()
    if absent := [str(path) for path in [*options.notebooks, options.data] if not path.exists()]:
        parser.error(f"{absent[0]}: not there; name a notebook under notebooks/ and a corpus folder")
    corpus, profile = options.data.resolve(), options.profile
    os.environ |= {"KD_CORPUS": str(corpus), "KD_PROFILE": profile}
    os.environ.setdefault("KD_CHECKPOINTS", checkpoints(profile))
    paths = options.notebooks or in_order(NOTEBOOKS.glob("[0-9]*.ipynb"))
    jobs = SIDE_BY_SIDE.get(profile, 1)
    if jobs > 1:
        os.environ["OMP_NUM_THREADS"] = "1"  # more threads than processors would wait for one another
    with ProcessPoolExecutor(jobs, initializer=end_with, initargs=(os.getpid(),)) as pool:
        passed = list(pool.map(bring, paths, [profile] * len(paths), [corpus] * len(paths)))
    sys.exit(0 if all(passed) else 1)


if __name__ == "__main__":
    main()
