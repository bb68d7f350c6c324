"""transformers' BERT, RoBERTa or XLM-R for sequence classification, tiny and random: weights, padded
ids, token types, logits of single texts and of pairs.

    bert.py FOLDER           writes bert/, roberta/ and xlm-roberta/ below it, each with config.json,
                             weights.safetensors, inputs.safetensors
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForSequenceClassification

# RoBERTa's head is BERT's pooler and classifier under other names.
renamed = {"classifier.dense.": "pooler.dense.", "classifier.out_proj.": "classifier."}


def write(kind, folder):
    torch.manual_seed(7)
    pad, types = (0, 2) if kind == "bert" else (1, 1)
    config = AutoConfig.for_model(kind, pad_token_id=pad, type_vocab_size=types, vocab_size=50, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64, max_position_embeddings=20, num_labels=5)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    for parameter in model.parameters():  # spread out, so that a swapped or missing tensor shows
        torch.nn.init.normal_(parameter, std=0.3)

    lengths = [9, 4, 1, 7]
    ids = torch.full((4, 9), pad)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(pad + 1, 50, (length,))
    mask = (torch.arange(9) < torch.tensor(lengths)[:, None]).long()
    token_types = (torch.arange(9) >= torch.tensor([5, 2, 1, 3])[:, None]).long() * mask * (types - 1)
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask).logits
        logits_of_pairs = model(input_ids=ids, attention_mask=mask, token_type_ids=token_types).logits

    state = {}
    for name, tensor in model.state_dict().items():
        name = name.removeprefix("bert.").removeprefix("roberta.")
        for old, new in renamed.items():
            name = name.replace(old, new)
        if "position_ids" not in name:
            state[name] = tensor
    save_file(state, folder / "weights.safetensors")
    inputs = {"ids": ids, "lengths": torch.tensor(lengths), "token_types": token_types}
    save_file({**inputs, "logits": logits, "logits_of_pairs": logits_of_pairs}, folder / "inputs.safetensors")
    config.save_pretrained(folder)


for kind in ["bert", "roberta", "xlm-roberta"]:
    folder = Path(sys.argv[1]) / kind
    folder.mkdir()
    write(kind, folder)
