"""The student in plain PyTorch. One update a batch, or with `evaluate` one forward pass.

weak:    as people write it: nn.LSTM(bidirectional) over packed sequences, fp32, AdamW as it comes.
strong:  two unidirectional passes over padded rows of like length, bf16 autocast, fused AdamW.
"""

import sys

import torch
from common import DEVICE, descend, half, inputs, padded, serve
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

EMBEDDING, HIDDEN, DROPOUT, CLIP, RATE = 300, 384, 0.3, 1.0, 1e-3


class Weak(nn.Module):
    def __init__(self, vocabulary, classes):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, EMBEDDING)
        self.lstm = nn.LSTM(EMBEDDING, HIDDEN, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(DROPOUT)
        self.classifier = nn.Linear(2 * HIDDEN, classes)

    def forward(self, ids, lengths):
        words = self.dropout(self.embedding(ids))
        packed = pack_padded_sequence(words, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, padding_value=float("-inf"))
        return self.classifier(self.dropout(states.max(1).values))


class Strong(nn.Module):
    def __init__(self, vocabulary, classes):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, EMBEDDING)
        self.directions = nn.ModuleList(nn.LSTM(EMBEDDING, HIDDEN, batch_first=True) for _ in range(2))
        self.dropout = nn.Dropout(DROPOUT)
        self.classifier = nn.Linear(2 * HIDDEN, classes)

    def forward(self, ids, lengths):
        positions = torch.arange(ids.shape[1], device=ids.device).unsqueeze(0)
        real = positions < lengths.unsqueeze(1)
        turned = torch.where(real, lengths.unsqueeze(1) - 1 - positions, positions)
        with torch.autocast(DEVICE, half(given)):
            words = self.dropout(self.embedding(ids)).to(half(given))
            backwards = words.gather(1, turned.unsqueeze(2).expand(-1, -1, EMBEDDING))
            states = [lstm(x)[0] for lstm, x in zip(self.directions, [words, backwards])]
        padding = ~real.unsqueeze(2)
        pooled = torch.cat([s.masked_fill(padding, float("-inf")).max(1).values for s in states], 1)
        return self.classifier(self.dropout(pooled.float()))


given, form = inputs()
model = (Weak if form == "weak" else Strong)(given["vocabulary"], given["classes"]).to(DEVICE)
batches = [padded(batch) for batch in given["shuffled" if form == "weak" else "bucketed"]]
optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), fused=form == "strong")
scaler = torch.amp.GradScaler(DEVICE, enabled=form == "strong" and half(given) == torch.float16)


def update(batch):
    ids, lengths, labels = batch
    optimiser.zero_grad()
    descend(nn.functional.cross_entropy(model(ids, lengths), labels), model, optimiser, scaler, CLIP)
    return len(ids)


def evaluate(batch):
    with torch.inference_mode():
        model(batch[0], batch[1]).argmax(1)
    return len(batch[0])


if "evaluate" in sys.argv[3:]:
    model.eval()
    serve(evaluate, batches)
else:
    serve(update, batches)
