"""The bundled sentence encoder: offline, without torch, the same vector for the same text."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib import resources

import numpy as np
import pytest

from memorist.memory.embed import HashedEmbedder, Remembering, Vectors
from memorist.memory.minilm import LONGEST, MiniLM

EXPECTED = [0.0439, 0.0589, 0.0482, 0.0775]
"""Of the fox, by the float model on torch 2.13."""


@pytest.fixture(scope="module")
def embedder() -> MiniLM:
    return MiniLM()


def test_what_means_alike_is_near(embedder: MiniLM) -> None:
    texts = ["She adopted a kitten.", "He now has a baby cat.", "The train to Lyon leaves at nine."]
    cat, kitten, train = embedder.embed(texts)
    assert cat @ kitten > 0.5 > 0.2 > cat @ train


def test_vectors_of_the_float_model(embedder: MiniLM) -> None:
    (found,) = embedder.embed(["The quick brown fox jumps over the lazy dog."])
    assert found[:4] == pytest.approx(EXPECTED, abs=4e-3)


def test_a_text_has_one_vector_whatever_stands_beside_it(embedder: MiniLM) -> None:
    texts = ["short", "a much longer sentence about somebody who likes to swim in cold lakes", "short"]
    together = embedder.embed(texts)
    assert (together[0] == together[2]).all()
    assert all((embedder.embed([text])[0] == row).all() for text, row in zip(texts, together, strict=True))


def test_vectors_have_length_1(embedder: MiniLM) -> None:
    vectors = embedder.embed(["one", "数年前", "x " * 5000, "\N{PILE OF POO}", "é" * LONGEST])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.isfinite(vectors).all() and vectors.shape == (5, 384) and vectors.dtype == np.float32


def test_blank_texts_and_no_texts(embedder: MiniLM) -> None:
    assert not embedder.embed(["", " \n"]).any()
    assert embedder.embed([]).shape == (0, 384)


def test_it_fits_into_the_package() -> None:
    files = resources.files("memorist") / "memory" / "minilm"
    assert sum(len((files / name).read_bytes()) for name in ("model.onnx", "tokenizer.json")) <= 25e6


def test_no_torch() -> None:
    code = (
        "import sys; from memorist.memory.minilm import MiniLM; MiniLM().embed(['a']); "
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_what_was_embedded_lately_is_not_computed_again() -> None:
    asked: list[str] = []

    class Counting(HashedEmbedder):
        def embed(self, texts: Sequence[str]) -> Vectors:
            asked.extend(texts)
            return super().embed(texts)

    plain, embedder = HashedEmbedder(), Remembering(Counting(), texts=2)
    long = "x y " * 1000
    for texts in (["a", "b", "a"], ["b"], [long], [long], ["c"], ["a"], []):
        assert (embedder.embed(texts) == plain.embed(texts)).all()
    assert asked == ["a", "b", long, long, "c", "a"]
    assert (embedder.name, embedder.size) == (plain.name, plain.size)
