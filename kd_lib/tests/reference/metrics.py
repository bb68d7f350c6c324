"""scikit-learn's figures for given labels and predictions.

    metrics.py FOLDER      reads predictions.json, writes metrics.json
"""

import json
import sys
from pathlib import Path

from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

folder = Path(sys.argv[1])
data = json.loads((folder / "predictions.json").read_text())
labels, predictions, classes = data["labels"], data["predictions"], list(range(data["classes"]))
precision, recall, f1, _ = precision_recall_fscore_support(labels, predictions, labels=classes, average="macro", zero_division=0)
figures = {"accuracy": accuracy_score(labels, predictions), "precision": precision, "recall": recall, "f1": f1}
confusion = confusion_matrix(labels, predictions, labels=classes).tolist()
(folder / "metrics.json").write_text(json.dumps(figures | {"confusion": confusion}))
