"""Token ids as text, one piece for each token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memorist.models.registry import BUNDLED, bundled_folder

TOKENIZER = "tokenizer.json"


class Speller:
    """Spells tokens by one tokenizer.

    Args:
        file: the tokenizer's.
        name: what pages call it.
    """

    def __init__(self, file: Path, name: str) -> None:
        from tokenizers import Tokenizer

        self.name = name
        self._tokenizer: Any = Tokenizer.from_file(str(file))

    def pieces(self, tokens: Sequence[int]) -> list[str] | None:
        """The text that each token adds; of a letter that is several tokens, the last one has it. None: these are no
        ids of this tokenizer."""
        from tokenizers.decoders import DecodeStream

        if any(not 0 <= token < self._tokenizer.get_vocab_size() for token in tokens):
            return None
        stream: Any = DecodeStream(skip_special_tokens=False)
        return [stream.step(self._tokenizer, token) or "" for token in tokens]


class Spellers:
    """The tokenizers of a run's policies, each opened once.

    Args:
        folder: the run's.
        models: what the recipe says that each role starts from.
    """

    def __init__(self, folder: Path, models: Mapping[str, str]) -> None:
        self._folder, self._models = folder, models
        self._opened: dict[tuple[str, str], Speller | None] = {}

    def of(self, role: str, policy: str) -> Speller | None:
        """The tokenizer of a role: its own in the run's folder, or that of the bundled model that it starts from."""
        if (role, policy) not in self._opened:
            self._opened[role, policy] = self._found(role, policy)
        return self._opened[role, policy]

    def _found(self, role: str, policy: str) -> Speller | None:
        policies = self._folder / "policies"
        # The role comes from a log: it names a folder only if it is one of those that are there.
        own = {place.name: place for place in policies.iterdir() if place.is_dir()} if policies.is_dir() else {}
        places = [(own[role], f"policies/{role}")] if role in own else []
        places += [(bundled_folder(name), name) for name in (self._models.get(role, ""), policy) if name in BUNDLED]
        for place, name in places:
            if (place / TOKENIZER).is_file():
                try:
                    return Speller(place / TOKENIZER, name)
                except Exception:  # noqa: BLE001 - whatever a damaged file makes the reader raise: text without tokens
                    continue
        return None
