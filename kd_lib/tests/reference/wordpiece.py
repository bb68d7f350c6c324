"""Token ids of a WordPiece vocabulary as transformers' BertTokenizer gives them.

    wordpiece.py FOLDER      reads vocab.txt and texts.txt, writes ids.json
"""

import json
import sys
from pathlib import Path

from transformers import BertTokenizer

folder = Path(sys.argv[1])
tokenizer = BertTokenizer(str(folder / "vocab.txt"))
texts = (folder / "texts.txt").read_text(encoding="utf8").split("\n")
(folder / "ids.json").write_text(json.dumps([tokenizer.encode(t, max_length=24, truncation=True) for t in texts]))
