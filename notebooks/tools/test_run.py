"""The notebook runner fails where Jupyter would stay green. Runs the real kernel."""

import tempfile
import unittest
from pathlib import Path

import nbformat
import run


class RunnerFailsLoudly(unittest.TestCase):
    def execute(self, source, tags=(), seconds=60):
        with tempfile.TemporaryDirectory() as folder:
            notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)})])
            path = Path(folder) / "case.ipynb"
            nbformat.write(notebook, path)
            run.execute(path, Path(folder) / "out" / "case.ipynb", seconds)

    def test_a_sound_cell_passes(self):
        self.execute('println!("fine");')

    def test_a_panic_fails(self):
        with self.assertRaisesRegex(run.Failed, "no such luck"):
            self.execute('panic!("no such luck");')

    def test_a_top_level_question_mark_fails(self):
        with self.assertRaisesRegex(run.Failed, "stderr"):
            self.execute('let n: i32 = "seven".parse::<i32>()?;')

    def test_an_error_on_stderr_fails(self):
        with self.assertRaisesRegex(run.Failed, "stderr"):
            self.execute('eprintln!("error: something");')

    def test_a_missing_figure_fails(self):
        with self.assertRaisesRegex(run.Failed, "shows none"):
            self.execute('println!("no picture");', tags=["figure"])

    def test_a_cell_that_never_ends_fails(self):
        with self.assertRaises(run.Failed):
            self.execute("loop { std::thread::sleep(std::time::Duration::from_secs(1)); }", seconds=15)


if __name__ == "__main__":
    unittest.main()
