"""Measures the throughput of `kd train` beside other work: on one thread, on all, and with the number
that kd chooses. Situations: an idle machine, one busy loop, two trainings at once, a build. Rounds
alternate between all of these. The results are appended to a CSV file; a second call continues it.

    .venv/bin/python notebooks/tools/load.py RECIPE CORPUS RESULTS.csv [--rounds 5] [--seconds 40]

With `--logits` the recipe is of a distilled student, and what is measured is its teacher's logits: the
teacher itself is trained on 32 texts first.
"""

import argparse
import csv
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SITUATIONS = ["idle", "busy loop", "two trainings", "build"]
STEP = re.compile(r"step (\d+)/")
LOGITS = re.compile(r"logits of (\d+) of ")
SHORT_TEACHER = ["train.epochs=1", "data.max_train_samples=32", "data.max_dev_samples=32", "data.skip_test=true"]


def threads_to_compare():
    return ["1", str(os.cpu_count()), "chosen"]


def train(folder, arguments, threads, seed):
    """Starts a training, or the computation of logits, that lasts longer than any measurement."""
    command = [ROOT / "target/debug/kd", "--checkpoints", folder]
    command += [] if threads == "chosen" else ["--threads", threads]
    command += ["train", arguments.recipe, "--data", arguments.corpus, "--seed", str(seed)]
    settings = ["train.epochs=1000", "train.eval_every_samples=10000000"]
    if arguments.logits:
        # Two teachers with one recipe would wait for one another.
        settings = [f"teacher.seed={seed}", *(f"teacher.{setting}" for setting in SHORT_TEACHER)]
    for setting in settings:
        command += ["--set", setting]
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    return subprocess.Popen(
        command, env=environment, cwd=ROOT, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def speed(training, pattern, warm_up, seconds):
    """Updates or texts a second from one line of progress to another, after the time in which kd
    adapts."""
    first = last = None
    end = None
    for line in training.stderr:
        step = pattern.search(line)
        now = time.monotonic()
        if not step:
            continue
        end = end or now + warm_up + seconds
        if now > end - seconds:
            last = (int(step[1]), now)
            first = first or last
        if now > end:
            break
    return (last[0] - first[0]) / (last[1] - first[1])


def busy_loop():
    return subprocess.Popen(["sh", "-c", "while :; do :; done"])


def build(folder):
    """Clean builds, one after the other, of a package with few dependencies of its own."""
    environment = os.environ | {"CARGO_TARGET_DIR": folder}
    loop = "while :; do cargo build --quiet --locked -p safetensors -p tokenizers; rm -rf $CARGO_TARGET_DIR/debug; done"
    return subprocess.Popen(
        ["sh", "-c", loop], env=environment, cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL
    )


def measure(threads, situation, arguments):
    pattern = LOGITS if arguments.logits else STEP
    span = (arguments.warm_up, arguments.seconds)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "e5-small").symlink_to(ROOT / "checkpoints/e5-small")
        other = None
        if situation == "busy loop":
            other = busy_loop()
        if situation == "build":
            other = build(folder + "/target")
        trainings = [train(folder, arguments, threads, 1)]
        if situation == "two trainings":
            trainings.append(train(folder, arguments, threads, 2))
        try:
            with ThreadPoolExecutor() as pool:
                return sum(pool.map(lambda training: speed(training, pattern, *span), trainings))
        finally:
            for training in trainings:
                training.kill()
                training.wait()
            if other and situation == "build":
                os.killpg(other.pid, signal.SIGKILL)
            elif other:
                other.kill()
            if other:
                other.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("corpus")
    parser.add_argument("results", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warm-up", type=float, default=15)
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--logits", action="store_true")
    parser.add_argument("--situations", nargs="+", default=SITUATIONS)
    arguments = parser.parse_args()
    done = {}
    if arguments.results.exists():
        with arguments.results.open() as file:
            for round_, situation, threads, measured in csv.reader(file):
                done[int(round_), situation, threads] = float(measured)
    for round_ in range(arguments.rounds):
        for situation in arguments.situations:
            for threads in threads_to_compare():
                if (round_, situation, threads) in done:
                    continue
                measured = measure(threads, situation, arguments)
                done[round_, situation, threads] = measured
                with arguments.results.open("a") as file:
                    csv.writer(file).writerow([round_, situation, threads, f"{measured:.4f}"])
                unit = "texts/s" if arguments.logits else "updates/s"
                print(f"round {round_}, {situation}, threads {threads}: {measured:.3f} {unit}", flush=True)
    for situation in arguments.situations:
        ratios = []
        for round_ in range(arguments.rounds):
            speeds = {threads: done[round_, situation, threads] for threads in threads_to_compare()}
            chosen = speeds.pop("chosen")
            ratios.append(chosen / max(speeds.values()))
        print(
            f"{situation}: chosen / better of the fixed numbers: median {statistics.median(ratios):.2f}, "
            f"{min(ratios):.2f} to {max(ratios):.2f} in {arguments.rounds} rounds"
        )


if __name__ == "__main__":
    sys.exit(main())
