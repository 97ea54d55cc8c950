import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from classifier.encoder import load_encoder
from rag.pairs import NO_SPAN, Pair, PairModel, PairSettings, check_window, collate, logits, room
from rag.reader import EvidenceReader, Excerpt
from rag.support import SupportReader
from rag.types import KnowledgeError
from tests.pair_cases import RECIPE, tiny, toy_reader, toy_support, write_encoder
from training.grounding.fit_pairs import untrained

PAIRS = [Pair([4, 5], [6, 7, 8, 9], [NO_SPAN, 1, 1, 2]), Pair([4], [6], [1]), Pair([], [5] * 9, [1] * 4 + [2] * 5)]


@pytest.fixture
def copied(tmp_path):
    """A copy of the toy reader whose files may be changed."""
    return shutil.copytree(toy_reader()[0], tmp_path / "copied")


def test_texts_stand_between_special_tokens_and_spans_follow_them():
    inputs = collate(tiny(), PAIRS[:2])
    assert inputs["input_ids"].tolist() == [[2, 4, 5, 3, 6, 7, 8, 9, 3], [2, 4, 3, 6, 3, 0, 0, 0, 0]]
    assert inputs["attention_mask"].tolist() == [[1] * 9, [1] * 5 + [0] * 4]
    assert inputs["spans"].tolist() == [[0, 0, 0, -1, -1, 1, 1, 2, -1], [0, 0, -1, 1, -1, -1, -1, -1, -1]]
    assert inputs["token_type_ids"].tolist() == [[0] * 4 + [1] * 5, [0] * 3 + [1] * 6]
    assert room(tiny(), 9) == 6 == len(PAIRS[0])


def test_a_span_is_the_mean_and_the_maximum_of_its_tokens():
    model = untrained(tiny(), 2, RECIPE).eval()
    inputs = collate(tiny(), PAIRS[:1])
    with torch.no_grad():
        pooled = model.pool(**inputs)[0]
        spans = inputs.pop("spans")[0]
        states = model.encoder(**inputs).last_hidden_state[0]
    assert pooled.shape == (3, 64)
    for span in range(3):
        inside = states[spans == span]
        expected = torch.cat([inside.mean(0), inside.amax(0)])
        assert torch.allclose(pooled[span], expected, atol=1e-6)


def test_a_pair_is_read_the_same_alone_and_among_others():
    model = untrained(tiny(), 2, RECIPE).eval()
    together = list(logits(model, tiny(), PAIRS, batch=2))
    assert [tuple(found.shape) for found in together] == [(3, 2), (2, 2), (3, 2)]
    for pair, found in zip(PAIRS, together, strict=True):
        (alone,) = logits(model, tiny(), [pair], batch=1)
        assert torch.allclose(alone, found, atol=1e-5)


def test_the_encoder_is_lent_and_left_as_it_was():
    encoder = load_encoder(tiny().name)
    before = {name: value.clone() for name, value in encoder.model.state_dict().items()}
    folder, _ = toy_reader()
    reader = EvidenceReader.load(folder, encoder)
    reader.read([Excerpt("where is it?", ("a rose.",))])
    own = {id(parameter) for parameter in encoder.model.parameters()}
    assert own <= {id(parameter) for parameter in reader.model.parameters()}
    assert all(torch.equal(value, before[name]) for name, value in encoder.model.state_dict().items())


def test_what_was_saved_comes_back(tmp_path):
    model = untrained(tiny(), 2, RECIPE).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
        model.centre.add_(0.1)
    model.save(tmp_path)
    settings = PairSettings("reader", "toy", "tiny", tiny().sha256, 48, {"passage": 0.4, "sentence": 0.3})
    settings.save(tmp_path)
    assert PairSettings.load(tmp_path, "reader") == settings
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    loaded = PairModel.load(tmp_path, tiny(), settings)
    expected = list(logits(model, tiny(), PAIRS, batch=3))
    found = list(logits(loaded, tiny(), PAIRS, batch=3))
    for one, other in zip(expected, found, strict=True):
        assert torch.allclose(one, other, atol=5e-3)  # the adapter is kept in half precision
    again = list(logits(PairModel.load(tmp_path, tiny(), settings), tiny(), PAIRS, batch=3))
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_a_model_of_another_encoder_is_refused(tmp_path):
    other = load_encoder(str(write_encoder(tmp_path, seed=1)))
    with pytest.raises(KnowledgeError, match=r"was trained on encoder .*, not on .*; load it onto the one"):
        EvidenceReader.load(toy_reader()[0], other)


def test_a_model_of_another_task_or_none_is_refused(tmp_path):
    with pytest.raises(KnowledgeError, match="is a support model, not a reader model"):
        EvidenceReader.load(toy_support()[0], tiny())
    with pytest.raises(KnowledgeError, match="is a reader model, not a support model"):
        SupportReader.load(toy_reader()[0], tiny())
    with pytest.raises(KnowledgeError, match=r"has no model\.json; give the folder that `airlock train reader` wrote"):
        EvidenceReader.load(tmp_path, tiny())


@pytest.mark.parametrize(
    "change",
    [
        {"task": "writer"},
        {"window": "long"},
        {"thresholds": {"passage": 1.5}},
        {"thresholds": {"tone": 0.5}},
        {"thresholds": 3},
        {"colour": "red"},
    ],
)
def test_malformed_settings_are_refused(copied, change):
    path = copied / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(KnowledgeError, match=r"model\.json is malformed"):
        EvidenceReader.load(copied, tiny())


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "head.safetensors", "adapter_config.json"])
@pytest.mark.parametrize("damage", ["missing", "rubbish", "nan"])
def test_damaged_weights_are_refused(copied, name, damage):
    path = copied / name
    if damage == "missing":
        path.unlink()
    elif damage == "rubbish":
        path.write_bytes(b"no weights")
    elif path.suffix == ".safetensors":
        save_file({key: value * float("nan") for key, value in load_file(path).items()}, path)
    else:
        return
    with pytest.raises(KnowledgeError, match="is damaged or incomplete"):
        EvidenceReader.load(copied, tiny())


def test_a_head_of_another_size_is_refused(copied):
    path = copied / "head.safetensors"
    head = load_file(path)
    save_file({**head, "head.weight": head["head.weight"][:1].clone()}, path)
    with pytest.raises(KnowledgeError, match="is damaged or incomplete"):
        EvidenceReader.load(copied, tiny())


@pytest.mark.parametrize("window", [16, 65])
def test_windows_that_the_encoder_cannot_read_are_refused(window):
    settings = PairSettings("reader", "toy", "tiny", tiny().sha256, 48)
    check_window(settings, tiny())
    with pytest.raises(KnowledgeError, match=f"windows of {window} tokens; encoder .* reads from 32 up to 64"):
        check_window(replace(settings, window=window), tiny())
