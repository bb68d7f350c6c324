"""transformers' BertForSequenceClassification, tiny and random: weights, padded ids, token
types, logits of single texts and of pairs.

    bert.py FOLDER      writes config.json, weights.safetensors, inputs.safetensors
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertForSequenceClassification

folder = Path(sys.argv[1])
torch.manual_seed(7)
config = BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64, max_position_embeddings=20, num_labels=5)
model = BertForSequenceClassification(config).eval()
for parameter in model.parameters():  # spread out, so that a swapped or missing tensor shows
    torch.nn.init.normal_(parameter, std=0.3)

lengths = [9, 4, 1, 7]
ids = torch.zeros(4, 9, dtype=torch.int64)
for row, length in enumerate(lengths):
    ids[row, :length] = torch.randint(1, 50, (length,))
mask = (torch.arange(9) < torch.tensor(lengths)[:, None]).long()
token_types = (torch.arange(9) >= torch.tensor([5, 2, 1, 3])[:, None]).long() * mask
with torch.no_grad():
    logits = model(input_ids=ids, attention_mask=mask).logits
    logits_of_pairs = model(input_ids=ids, attention_mask=mask, token_type_ids=token_types).logits

state = {name.removeprefix("bert."): tensor for name, tensor in model.state_dict().items() if "position_ids" not in name}
save_file(state, folder / "weights.safetensors")
inputs = {"ids": ids, "lengths": torch.tensor(lengths), "token_types": token_types}
save_file({**inputs, "logits": logits, "logits_of_pairs": logits_of_pairs}, folder / "inputs.safetensors")
config.save_pretrained(folder)
