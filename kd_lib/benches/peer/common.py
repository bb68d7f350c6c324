"""What every contender in Python shares: its inputs, and the protocol of the race.

    SCRIPT INPUTS FORM      FORM is weak or strong; INPUTS is the JSON file that the race wrote

A line with a number on standard input asks for so many batches; the answer is a line of JSON with the seconds, the texts
and the process's largest memory in MiB.
"""

import json
import resource
import sys
import time

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def inputs():
    with open(sys.argv[1], encoding="utf8") as file:
        return json.load(file), sys.argv[2]


def padded(batch, width=0, fill=0):
    """ids [batch, seq], lengths [batch], labels [batch]; as wide as the longest row, or `width`."""
    rows = batch["ids"]
    seq = max(width, *(len(row) for row in rows))
    ids = torch.tensor([row + [fill] * (seq - len(row)) for row in rows])
    return ids, torch.tensor([len(row) for row in rows]), torch.tensor(batch["labels"])


def half(given):
    """The strong form's numbers: those of our side, where it has any of 16 bits."""
    return torch.float16 if given["precision"] == "fp16" else torch.bfloat16


def descend(loss, model, optimiser, scaler, clip=None):
    """One update; `scaler` acts under fp16 alone."""
    scaler.scale(loss).backward()
    if clip:
        scaler.unscale_(optimiser)
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    scaler.step(optimiser)
    scaler.update()


def serve(work, batches):
    """Works through the batches, over and over, as many at a time as the race asks for."""
    done = 0
    for line in sys.stdin:
        texts, start = 0, time.perf_counter()
        for _ in range(int(line)):
            texts += work([tensor.to(DEVICE, non_blocking=True) for tensor in batches[done % len(batches)]])
            done += 1
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "texts": texts, "peak": peak}), flush=True)
