"""The first answer in Python: loads a run's student and classifies one text.

    answer.py RUN TEXT
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn


class Student(nn.Module):
    def __init__(self, vocabulary, embedding, hidden, classes):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.lstm = nn.LSTM(embedding, hidden, batch_first=True, bidirectional=True)
        self.classifier = nn.Linear(2 * hidden, classes)

    def forward(self, ids):
        return self.classifier(self.lstm(self.embedding(ids))[0].max(1).values)


folder, text = Path(sys.argv[1]), sys.argv[2]
weights = load_file(folder / "model.safetensors")
classes, both = weights["classifier.weight"].shape
student = Student(*weights["embedding.weight"].shape, both // 2, classes)
student.load_state_dict(weights)
student.eval()
ids = {entry: i for i, entry in enumerate((folder / "vocab.txt").read_text(encoding="utf8").splitlines())}
with torch.inference_mode():
    shares = student(torch.tensor([[ids.get(c, 1) for c in text]])).softmax(1)[0]
labels = json.loads((folder / "labels.json").read_text(encoding="utf8"))
print(json.dumps({"label": labels[int(shares.argmax())], "probability": float(shares.max())}, ensure_ascii=False))
