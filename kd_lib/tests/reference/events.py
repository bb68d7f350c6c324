"""events.py RUN OUT: a run's event file as TensorBoard reads it, as JSON: {name: [[step, value], ...]}."""

import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

run, out = sys.argv[1:]
events = EventAccumulator(run)
events.Reload()
scalars = {tag: [[e.step, e.value] for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
with open(out, "w", encoding="utf8") as file:
    json.dump(scalars, file)
