"""The student as plain PyTorch modules, fed packed sequences: logits and gradients.

    bilstm.py FOLDER      reads weights.safetensors and inputs.safetensors, writes outputs.safetensors
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class Student(nn.Module):
    def __init__(self, vocabulary, embedding, hidden, classes):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.lstm = nn.LSTM(embedding, hidden, batch_first=True, bidirectional=True)
        self.classifier = nn.Linear(2 * hidden, classes)

    def forward(self, ids, lengths):
        packed = pack_padded_sequence(self.embedding(ids), lengths, batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, padding_value=float("-inf"))
        return self.classifier(states.max(1).values)


folder = Path(sys.argv[1])
weights = load_file(folder / "weights.safetensors")
inputs = load_file(folder / "inputs.safetensors")
vocabulary, embedding = weights["embedding.weight"].shape
classes, both = weights["classifier.weight"].shape
student = Student(vocabulary, embedding, both // 2, classes)
student.load_state_dict(weights, strict=True)
logits = student(inputs["ids"], inputs["lengths"])
nn.functional.cross_entropy(logits, inputs["labels"]).backward()
gradients = {f"grad.{name}": parameter.grad for name, parameter in student.named_parameters()}
save_file({"logits": logits.detach(), **gradients}, folder / "outputs.safetensors")
