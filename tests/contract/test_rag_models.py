"""The reader and the support model of the package: they load on the encoder they name, and tell plain cases apart."""

import json

import pytest

from classifier.encoder import load_encoder
from rag import reader, support
from rag.reader import EvidenceReader, Excerpt
from rag.support import SupportReader

DOSE = "Adults may take up to eight tablets of paracetamol in 24 hours."
REST = ("It was first made in 1878.", DOSE, "Keep it away from children.")


def base(folder):
    """The encoder that a model names."""
    return load_encoder(json.loads((folder / "model.json").read_text(encoding="utf-8"))["encoder"])


@pytest.mark.parametrize("folder", [reader.SHIPPED, support.SHIPPED], ids=lambda folder: folder.name)
def test_a_model_comes_with_its_card_and_manifest_and_no_pickle(folder):
    assert {path.suffix for path in folder.iterdir()} == {".json", ".md", ".safetensors"}
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert manifest["figures"]
    assert all(source in card for source in manifest["trained_on"] if source != "edits")
    assert "Limits" in card
    assert "wice" not in manifest["trained_on"]
    assert "summedits" not in manifest["trained_on"]


def test_the_reader_finds_the_sentence_that_answers_and_knows_when_none_does():
    found = EvidenceReader.load(reader.SHIPPED, base(reader.SHIPPED))
    asked, other = found.read(
        [
            Excerpt("How many tablets of paracetamol may an adult take in a day?", REST, "Paracetamol"),
            Excerpt("Who won the football final in 1994?", REST, "Paracetamol"),
        ]
    )
    assert max(range(3), key=asked.sentences.__getitem__) == 1
    assert asked.answers > 0.5 > other.answers


def test_the_support_model_tells_support_from_contradiction_and_silence():
    judge = SupportReader.load(support.SHIPPED, base(support.SHIPPED))
    passage = " ".join(REST)
    same, other, silent = judge.support(
        [
            (passage, "Adults may take up to eight paracetamol tablets in 24 hours."),
            (passage, "Adults may not take eight tablets of paracetamol in 24 hours."),
            (passage, "The museum opens at nine o'clock on Sundays."),
        ]
    )
    assert same.supported > 0.5 > other.supported
    assert other.contradicted > other.supported
    assert silent.not_stated > 0.5 > silent.supported
