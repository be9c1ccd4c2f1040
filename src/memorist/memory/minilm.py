"""The bundled sentence encoder: all-MiniLM-L6-v2 on ONNX Runtime, without torch and without a network.

Made by scripts/make_embedder.py; weights Apache-2.0 (sentence-transformers/all-MiniLM-L6-v2).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from importlib import resources
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from memorist.errors import BankError
from memorist.memory.embed import Vectors

LONGEST = 2000
"""Characters of a text that are read; the model sees 256 tokens of them."""


class MiniLM:
    """English sentences to vectors of 384 numbers; texts that mean alike are near.

    Each text is computed by itself: in a batch its vector would depend, in the last digits, on the texts beside it, and
    equal texts would no longer be equally near. What threads there are compute several texts at once instead.

    Args:
        threads: texts that are computed at once.
        folder: another folder with model.onnx and tokenizer.json than the bundled one.

    Raises:
        BankError: ONNX Runtime or tokenizers is not installed; at the first use.
    """

    latin_only = True
    name = "all-MiniLM-L6-v2-int8-blocks"
    size = 384

    def __init__(self, threads: int = 2, folder: Path | None = None) -> None:
        self.threads, self.folder = threads, folder
        self._loading = Lock()

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Embed `texts` to shape (len(texts), 384); a blank one is 0."""
        with self._loading:
            one = self._one
        if len(texts) < 2:
            rows = [one(text) for text in texts]
        else:
            with ThreadPoolExecutor(self.threads) as pool:
                rows = list(pool.map(one, texts))
        return np.stack(rows) if rows else np.zeros((0, self.size), np.float32)

    @cached_property
    def _one(self) -> Any:
        """Loads the model; then text -> vector."""
        try:
            import onnxruntime
            from tokenizers import Tokenizer
        except ImportError as error:
            raise BankError(
                f"the bundled embedder needs {error.name}, which is not installed: pip install onnxruntime tokenizers; "
                "or name another embedder, e.g. 'hashed-stems-256'"
            ) from error
        files = self.folder or resources.files("memorist") / "memory" / "minilm"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        model = (files / "model.onnx").read_bytes()
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        tokenizer = Tokenizer.from_str((files / "tokenizer.json").read_text(encoding="utf-8"))
        nothing = np.zeros(self.size, np.float32)

        def one(text: str) -> Vectors:
            if not text.strip():
                return nothing
            # No tokenizer takes lone surrogates.
            read = text[:LONGEST].encode("utf-8", "replace").decode("utf-8")
            ids = np.array([tokenizer.encode(read).ids], np.int64)
            (vectors,) = session.run(None, {"ids": ids, "mask": np.ones_like(ids)})
            return np.asarray(vectors[0], np.float32)

        return one
