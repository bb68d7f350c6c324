"""The teacher in `transformers`. One update a batch, or with `evaluate` one forward pass.

weak:    as people write it: BertModel with the whole vocabulary, everything padded to 64, fp32, AdamW as it comes.
strong:  SDPA, the corpus's own rows of the vocabulary, rows of like length, bf16 autocast, fused AdamW.
"""

import sys

import torch
from common import DEVICE, descend, half, inputs, padded, serve
from torch import nn
from transformers import BertConfig, BertModel

WIDEST, RATE = 64, 1e-4


class Teacher(nn.Module):
    def __init__(self, config, classes):
        super().__init__()
        self.bert = BertModel(config, add_pooling_layer=False)
        self.classifier = nn.Sequential(nn.Dropout(config.hidden_dropout_prob), nn.Linear(config.hidden_size, classes))

    def forward(self, ids, lengths):
        real = torch.arange(ids.shape[1], device=ids.device).unsqueeze(0) < lengths.unsqueeze(1)
        states = self.bert(input_ids=ids, attention_mask=real.long()).last_hidden_state.float()
        weights = real.unsqueeze(2).float()
        return self.classifier((states * weights).sum(1) / weights.sum(1))


given, form = inputs()
strong = form == "strong"
config = BertConfig.from_pretrained(given["checkpoint"])
config._attn_implementation = "sdpa"
if strong:
    config.vocab_size = given["vocabulary"]
model = Teacher(config, given["classes"]).to(DEVICE)
if strong:
    batches = [padded(batch, fill=given["pad"]) for batch in given["bucketed"]]
else:  # with the tokenizer's own ids
    own = [{"ids": [[given["kept"][i] for i in row] for row in b["ids"]], "labels": b["labels"]} for b in given["shuffled"]]
    batches = [padded(batch, WIDEST, given["kept"][given["pad"]]) for batch in own]
optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), fused=strong)
scaler = torch.amp.GradScaler(DEVICE, enabled=strong and half(given) == torch.float16)


def update(batch):
    ids, lengths, labels = batch
    optimiser.zero_grad()
    with torch.autocast(DEVICE, half(given), enabled=strong):
        logits = model(ids, lengths)
    descend(nn.functional.cross_entropy(logits.float(), labels), model, optimiser, scaler)
    return len(ids)


def evaluate(batch):
    with torch.inference_mode(), torch.autocast(DEVICE, half(given), enabled=strong):
        model(batch[0], batch[1])
    return len(batch[0])


if "evaluate" in sys.argv[3:]:
    model.eval()
    serve(evaluate, batches)
else:
    serve(update, batches)
