"""Token ids by Python's tokenizers.

    tokens.py TOKENIZER_JSON FOLDER      reads texts.txt, writes ids.json
"""

import json
import sys
from pathlib import Path

from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file(sys.argv[1])
tokenizer.enable_truncation(64)
texts = (Path(sys.argv[2]) / "texts.txt").read_text(encoding="utf8").split("\n")
ids = [encoding.ids for encoding in tokenizer.encode_batch(["query: " + text for text in texts])]
(Path(sys.argv[2]) / "ids.json").write_text(json.dumps(ids))
