"""The notebook runner fails where Jupyter would stay green, cells reach CUDA, and set-up says what it lacks.

The real kernel runs; only the network is mocked.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from unittest.mock import patch

import corpus
import kernel
import nbformat
import rattler
import run
import yaml
from jupyter_client import KernelManager
from nbconvert import HTMLExporter


class Cell(unittest.TestCase):
    def execute(self, source, tags=(), seconds=180):  # notebooks run beside these tests
        with tempfile.TemporaryDirectory() as folder:
            notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)})])
            path = Path(folder) / "case.ipynb"
            nbformat.write(notebook, path)
            run.execute(path, Path(folder) / "out" / "case.ipynb", seconds)


class RunnerFailsLoudly(Cell):
    def test_a_sound_cell_passes(self):
        self.execute('println!("fine");')

    def test_a_panic_fails(self):
        with self.assertRaisesRegex(run.Failed, "no such luck"):
            self.execute('panic!("no such luck");')

    def test_what_does_not_compile_fails_in_the_compiler_s_words(self):
        with self.assertRaisesRegex(run.Failed, "mismatched types"):
            self.execute('let n: i32 = "seven";')

    def test_the_program_ends_with_a_failing_code_and_keeps_no_stamp(self):
        cell = nbformat.v4.new_code_cell('panic!("no such luck");')
        path = Path(run.NOTEBOOKS / "out" / "smoke" / "panics.ipynb")
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
        path.with_suffix(".passed").write_text("an earlier pass", encoding="utf8")
        try:
            answer = subprocess.run([sys.executable, run.__file__, path], capture_output=True, text=True)
        finally:
            path.unlink()
        self.assertEqual(answer.returncode, 1)
        self.assertIn("no such luck", answer.stderr)
        self.assertFalse(path.with_suffix(".passed").exists())

    def test_a_top_level_question_mark_fails(self):
        with self.assertRaisesRegex(run.Failed, "stderr"):
            self.execute('let n: i32 = "seven".parse::<i32>()?;')

    def test_an_error_on_stderr_fails(self):
        with self.assertRaisesRegex(run.Failed, "stderr"):
            self.execute('eprintln!("error: something");')

    def test_an_empty_value_fails(self):
        with self.assertRaisesRegex(run.Failed, "semicolon"):
            self.execute('for i in 0..2 { println!("{i}"); }')

    def test_a_missing_figure_fails(self):
        with self.assertRaisesRegex(run.Failed, "shows none"):
            self.execute('println!("no picture");', tags=["figure"])

    def test_a_cell_that_never_ends_fails(self):
        with self.assertRaises(run.Failed):
            self.execute("loop { std::thread::sleep(std::time::Duration::from_secs(1)); }", seconds=15)


class LateOutput(unittest.TestCase):
    def test_what_a_cell_prints_just_before_its_end_joins_its_outputs(self):
        late = [self.stream("stdout", "the verdict\n"), self.stream("stderr", "a warning\n")]

        class Kernel:
            async def get_iopub_msg(self, timeout):
                if not late:
                    raise run.Empty
                return late.pop(0)

        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("")])
        client = run.Client(notebook)
        client.clear_before_next_output = False  # as execute_cell leaves it
        client.kc = Kernel()
        cell = notebook.cells[0]
        self.assertEqual(run.late_stderr(client, cell=cell, index=0), "a warning\n")
        self.assertEqual([output.text for output in cell.outputs], ["the verdict\n"])

    def stream(self, name, text):
        return {"msg_type": "stream", "content": {"name": name, "text": text}, "parent_header": {}, "header": {"msg_type": "stream"}, "metadata": {}}


class CudaIsReachable(Cell):
    def test_a_cell_can_load_the_library_that_the_linker_drops(self):
        load = ':dep kd_lib = { path = "../kd_lib" }\n:dep kd_notebook = { path = "support" }\nkd_lib::device::open_cuda().unwrap();\n'
        look = 'std::fs::read_to_string("/proc/self/maps").unwrap().contains("libtorch_cuda")'
        self.execute(f'{load}assert!({look});', seconds=300)


class SetUpSaysWhatItLacks(unittest.TestCase):
    def doctor(self, folder=run.ROOT, **environment):
        return subprocess.run(["/bin/sh", run.NOTEBOOKS / "tools" / "doctor.sh"], capture_output=True, text=True, cwd=folder, env=environment)

    def test_a_folder_that_was_moved(self):
        with tempfile.TemporaryDirectory() as folder:
            pip = Path(folder) / ".venv/bin/pip"
            pip.parent.mkdir(parents=True)
            for place, code in [("/before", 1), (folder, 0)]:
                pip.write_text(f"#!{place}/.venv/bin/python3\n")
                answer = self.doctor(folder, **os.environ)
                self.assertEqual((answer.returncode, "was moved after set-up" in answer.stderr), (code, code == 1))

    def test_no_compiler(self):
        answer = self.doctor(PATH="/nowhere")
        self.assertEqual(answer.returncode, 1)
        self.assertIn("apt install g++", answer.stderr)
        self.assertEqual(len(answer.stderr.splitlines()), 1)

    def test_python_too_old(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in ["c++", "cargo", "python3"]:
                path = Path(folder) / name
                path.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.8.1\nexit 1\n')
                path.chmod(0o755)
            answer = self.doctor(PATH=folder)
        self.assertIn("Python 3.8.1 does not fit the pins; install Python 3.10 to 3.13", answer.stderr)


class MakeInAnotherEnvironment(unittest.TestCase):
    """The Makefile in a copy of the project, whose cargo only puts a program where the real one would."""

    HEAVY = ("target", ".git", ".venv", ".evcxr", ".libtorch", "checkpoints", "out", "node_modules", "reviews", "default")
    CARGO = '#!/bin/sh\nt=${CARGO_TARGET_DIR:-target}/debug; mkdir -p "$t"; cp /bin/true "$t/kd"\n'

    def setUp(self):
        self.outside = Path(tempfile.mkdtemp(prefix="kd it's "))
        self.addCleanup(shutil.rmtree, self.outside)
        self.project = self.outside / "the project"
        shutil.copytree(run.ROOT, self.project, ignore=shutil.ignore_patterns(*self.HEAVY), symlinks=True)
        (self.project / ".venv/bin").mkdir(parents=True)
        (self.project / ".venv/bin/python").symlink_to(run.ROOT / ".venv/bin/python")
        (self.project / ".venv/.installed").touch()
        (self.project / ".libtorch").symlink_to(run.ROOT / ".libtorch")
        cargo = self.outside / "bin/cargo"
        cargo.parent.mkdir()
        cargo.write_text(self.CARGO)
        cargo.chmod(0o755)

    def make(self, *arguments, **environment):
        path = f"{self.outside / 'bin'}:{os.environ['PATH']}"
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "CARGO"))}
        command = ["make", "--no-print-directory", *arguments]
        return subprocess.run(command, cwd=self.project, env=clean | environment | {"PATH": path}, capture_output=True, text=True)

    def test_a_target_folder_that_the_shell_has_set_for_others(self):
        done = self.make("target/debug/kd", CARGO_TARGET_DIR=str(self.outside / "elsewhere"))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(os.access(self.project / "target/debug/kd", os.X_OK))
        self.assertFalse((self.outside / "elsewhere").exists())

    def test_a_corpus_whose_folder_has_blanks_and_an_apostrophe(self):
        for name in ["my corpus", "it's"]:
            corpus_folder = self.outside / name
            shutil.copytree(run.ROOT / "data/sample", corpus_folder)
            done = self.make("corpus", f"DATA={corpus_folder}")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual((self.project / "data/default").resolve(), corpus_folder)

    def test_a_folder_of_the_reader_s_own_is_not_replaced(self):
        (self.project / "data/default").mkdir()
        done = self.make("corpus", "DATA=data/sample")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("rename it", done.stderr)


class CommittedNotebooks(unittest.TestCase):
    def notebooks(self):
        return {path.name: nbformat.read(path, as_version=4) for path in sorted(run.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))}

    def test_every_picture_stands_in_the_html_without_a_server(self):
        for name, notebook in self.notebooks().items():
            outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
            drawn = sum("<svg" in output.get("data", {}).get("image/svg+xml", "") for output in outputs)
            page, _ = HTMLExporter().from_notebook_node(notebook)
            self.assertEqual(page.count('src="data:image/svg+xml;base64,'), drawn, name)
            figures = [cell for cell in notebook.cells if "figure" in cell.metadata.get("tags", [])]
            if outputs:
                self.assertTrue(figures, name)
            for cell in figures if outputs else []:  # the table of mistakes has its pictures in HTML
                shown = [text for output in cell.outputs for text in output.get("data", {}).values()]
                self.assertTrue(any("<svg" in text for text in shown), f"{name}: {cell.id}")

    def test_nothing_volatile_is_kept_and_cells_have_names_of_their_own(self):
        for name, notebook in self.notebooks().items():
            self.assertLessEqual(set(notebook.metadata), {"kernelspec", "language_info"}, name)
            self.assertEqual(set().union(*(cell.metadata for cell in notebook.cells)) - {"tags", "scrolled"}, set(), name)
            self.assertEqual(len({cell.id for cell in notebook.cells}), len(notebook.cells), name)
            too_long = [cell.id for cell in notebook.cells if cell.cell_type == "code" and cell.source.count("\n") >= 12]
            self.assertEqual(too_long, [], name)


class CondaReadsTheEnvironment(unittest.TestCase):
    def test_every_line_is_a_specification(self):
        environment = yaml.safe_load((run.ROOT / "environment.yml").read_text(encoding="utf8"))
        self.assertEqual(set(environment), {"name", "channels", "dependencies"})
        rattler.Channel(environment["channels"][0])
        names = [rattler.MatchSpec(line).name.normalized for line in environment["dependencies"]]
        self.assertTrue({"python", "rust", "rust-src", "cxx-compiler", "make"} <= set(names), names)


class KernelsHaveFoldersOfTheirOwn(unittest.TestCase):
    def setUp(self):
        self.root = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)
        for name in ["WARM", "SPARE", "KERNELS"]:
            mocked = patch.object(kernel, name, self.root / name.lower())
            mocked.start()
            self.addCleanup(mocked.stop)
        kernel.WARM.mkdir()
        (kernel.WARM / "small").write_text("warm")
        (kernel.WARM / "large").write_bytes(bytes(kernel.LINKED_FROM))

    def test_the_spare_folder_goes_to_one_kernel_and_the_next_one_copies(self):
        kernel.make_spare_copy()
        spare = (kernel.SPARE / "small").stat().st_ino
        first, second = kernel.private_copy(), kernel.private_copy()
        self.assertEqual((first / "small").stat().st_ino, spare)
        self.assertFalse(kernel.SPARE.exists())
        (first / "small").write_text("written by one kernel")
        for other in [second, kernel.WARM]:
            self.assertEqual((other / "small").read_text(), "warm")
            self.assertTrue((other / "large").samefile(first / "large"))

    def test_folders_of_dead_kernels_are_swept(self):
        (kernel.KERNELS / "999999999-dead").mkdir(parents=True)
        mine = kernel.private_copy()
        self.assertEqual([mine], list(kernel.KERNELS.iterdir()))


class KernelFindsItsLibraries(unittest.TestCase):
    def test_rust_s_own_library_is_on_its_path(self):
        folders = kernel.environment()["LD_LIBRARY_PATH"].split(":")
        for pattern in ["libtorch_cpu.so", "libstd-*.so"]:
            self.assertTrue(any(list(Path(folder).glob(pattern)) for folder in folders), pattern)


class KernelOutlivesItsClients(unittest.TestCase):
    def test_one_that_asks_often_and_hangs_up_at_the_first_answer(self):
        manager = KernelManager(kernel_name="kd_rust")
        manager.start_kernel(cwd=str(run.NOTEBOOKS))
        client = manager.client()
        client.start_channels()
        try:
            for _ in range(2000):
                client.control_channel.send(client.session.msg("kernel_info_request"))
            client.control_channel.get_msg(timeout=120)
            client.control_channel.socket.close(linger=0)
            time.sleep(3)
            self.assertTrue(manager.is_alive())
            self.assertEqual(client.execute_interactive("1 + 1", timeout=120, output_hook=lambda _: None)["content"]["status"], "ok")
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)


def alive_after(seconds, processes):
    """The processes that have not ended after so many seconds."""
    deadline = time.monotonic() + seconds
    while processes and time.monotonic() < deadline:
        time.sleep(0.5)
        processes = [p for p in processes if Path(f"/proc/{p}").exists()]
    return processes


class KernelEndsWithItsParent(unittest.TestCase):
    PARENT = """
import sys
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name="kd_rust", startup_timeout=120)
client.execute("loop { std::thread::sleep(std::time::Duration::from_secs(1)); }")
print("launcher", manager.provisioner.pid, flush=True)
sys.stdin.read()
"""

    def test_a_cell_that_is_running_ends_when_its_parent_is_killed(self):
        parent = subprocess.Popen([sys.executable, "-c", self.PARENT], cwd=run.NOTEBOOKS, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(parent.communicate)
        self.addCleanup(parent.kill)
        said = next(line for line in parent.stdout if line.startswith(b"launcher"))  # evcxr prints there too
        launcher = int(said.split()[1])
        time.sleep(5)
        processes = [launcher, *kernel.below(launcher)]
        self.assertGreaterEqual(len(processes), 3, "the launcher, evcxr, and the process of the cells")
        parent.kill()
        parent.wait()
        self.assertEqual(alive_after(10, processes), [])


class KernelEndsWithTheRunner(unittest.TestCase):
    def test_a_running_cell_ends_when_the_runner_is_killed(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "endless.ipynb"
            cell = nbformat.v4.new_code_cell('println!("begun"); loop { std::thread::sleep(std::time::Duration::from_secs(1)); }')
            nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
            command = [sys.executable, run.NOTEBOOKS / "tools" / "run.py", "--profile", "smoke", "--data", "data/sample", path]
            runner = subprocess.Popen(command, cwd=run.ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            self.addCleanup(runner.communicate)
            self.addCleanup(runner.kill)
            self.assertTrue(any(b"begun" in line for line in runner.stdout))
            # The launcher may still remove their folder when both are gone.
            processes = [p for p in kernel.below(runner.pid) if Path(f"/proc/{p}/comm").read_text().startswith("evcxr")]
            self.assertEqual(len(processes), 2, "evcxr, and the process of the cells")
            runner.kill()
            runner.wait()
            self.assertEqual(alive_after(10, processes), [])


class PackedForAGpu(unittest.TestCase):
    def test_what_is_packed_trains_on_the_torch_of_a_python(self):
        root = run.NOTEBOOKS.parent
        subprocess.run(["sh", "notebooks/tools/pack.sh", "data/sample"], cwd=root, check=True, capture_output=True)
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        subprocess.run(["tar", "-C", folder, "-xf", root / "checkpoints" / "pack.tar"], check=True)
        pack = folder / "pack"

        def go(*arguments):
            command = ["sh", pack / "go.sh", *arguments]
            done = subprocess.run(command, cwd=folder, env=os.environ | {"PYTHON": sys.executable}, capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)
            return Path(done.stdout.strip())

        trained = go("train", pack / "notebooks/recipes/student.toml", "--data", pack / "sample", "--profile", "smoke")
        added = go("results", "add", trained.name)
        self.assertLess(added.stat().st_size, 250_000)
        report = json.loads((trained / "report.json").read_text())
        self.assertEqual(report["commit"], (pack / "checkpoints" / "commit").read_text().strip())

    def test_a_teacher_s_logits_are_packed_without_its_weights(self):
        root = run.NOTEBOOKS.parent
        (root / "checkpoints" / "runs").mkdir(parents=True, exist_ok=True)
        teacher = Path(tempfile.mkdtemp(prefix="packed-", dir=root / "checkpoints" / "runs"))
        self.addCleanup(shutil.rmtree, teacher)
        (teacher / "predictions").mkdir()
        for name in ["b3sums", "model.safetensors", "predictions/part-0.safetensors"]:
            (teacher / name).write_text(name)
        subprocess.run(["sh", "notebooks/tools/pack.sh", "data/sample", teacher.name], cwd=root, check=True, capture_output=True)
        packed = root / "checkpoints" / "pack" / "checkpoints" / "runs" / teacher.name
        found = {str(path.relative_to(packed)) for path in packed.rglob("*") if path.is_file()}
        self.assertEqual(found, {"b3sums", "predictions/part-0.safetensors"})
        refused = subprocess.run(["sh", "notebooks/tools/pack.sh", "data/sample", "no-such-run"], cwd=root, capture_output=True, text=True)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("no-such-run: no finished run", refused.stderr)


class CorpusIsFound(unittest.TestCase):
    def test_a_folder_that_is_not_there_is_refused(self):
        with self.assertRaisesRegex(OSError, "no-such-folder.*name one"):
            corpus.folder_of("no-such-folder")

    def test_without_a_network_the_reviews_stand_in(self):
        with tempfile.TemporaryDirectory() as folder:
            with patch.object(corpus, "DATA", Path(folder)), patch.dict("os.environ", {"KD_DATA": ""}), patch.object(corpus, "download_titles", side_effect=OSError("no route")):
                found = corpus.auto()
            sizes = {name: len((found / f"{name}.txt").read_text(encoding="utf8").splitlines()) for name in ["train", "dev", "test"]}
        self.assertEqual(sizes, {"train": 13889, "dev": 1736, "test": 1736})


if __name__ == "__main__":
    unittest.main()
