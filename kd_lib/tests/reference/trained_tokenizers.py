"""Small tokenizers of two kinds, trained on texts.

    trained_tokenizers.py FOLDER      reads texts.txt, writes wordpiece/ and bpe/ with tokenizer.json
"""

import sys
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import BPE, WordPiece
from tokenizers.pre_tokenizers import ByteLevel, Whitespace
from tokenizers.processors import BertProcessing, RobertaProcessing
from tokenizers.trainers import BpeTrainer, WordPieceTrainer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def train(name, tokenizer, trainer, processing):
    tokenizer.train_from_iterator(texts, trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[SEP]", "[CLS]")]
    tokenizer.post_processor = processing(*ends)
    (folder / name).mkdir()
    tokenizer.save(str(folder / name / "tokenizer.json"))


folder = Path(sys.argv[1])
texts = (folder / "texts.txt").read_text(encoding="utf8").split("\n")

wordpiece = Tokenizer(WordPiece(unk_token="[UNK]"))
wordpiece.pre_tokenizer = Whitespace()
train("wordpiece", wordpiece, WordPieceTrainer(vocab_size=80, special_tokens=SPECIAL), BertProcessing)

bpe = Tokenizer(BPE())
bpe.pre_tokenizer = ByteLevel(add_prefix_space=False)
alphabet = ByteLevel.alphabet()
trainer = BpeTrainer(vocab_size=340, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
train("bpe", bpe, trainer, RobertaProcessing)
