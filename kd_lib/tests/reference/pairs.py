"""Token ids and token types of text pairs as transformers' fast tokenizers give them.

    pairs.py TOKENIZER_JSON|VOCAB_TXT FOLDER      reads pairs.json beside this file, writes encodings.json

Each maximum length maps to one {"ids", "token_types"} a pair, truncated by `longest_first`, the default.
"""

import json
import sys
from pathlib import Path

from transformers import BertTokenizerFast, PreTrainedTokenizerFast

source, folder = Path(sys.argv[1]), Path(sys.argv[2])
if source.suffix == ".json":
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(source))
else:
    tokenizer = BertTokenizerFast(vocab_file=str(source))
pairs = json.loads((Path(__file__).parent / "pairs.json").read_text(encoding="utf8"))
encodings = {}
for length in [16, 32, 64, 512]:
    encodings[length] = []
    for first, second in pairs:
        encoding = tokenizer(first, second, truncation=True, max_length=length, return_token_type_ids=True)
        encodings[length].append({"ids": encoding["input_ids"], "token_types": encoding["token_type_ids"]})
(folder / "encodings.json").write_text(json.dumps(encodings))
