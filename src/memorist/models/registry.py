"""Opening models by name: "bundled", a folder, or a name on a hub."""

from __future__ import annotations

import json
import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memorist.catalogue import find, offered
from memorist.errors import PolicyError

if TYPE_CHECKING:
    from memorist.models.causal import CausalPolicy


BUNDLED = (
    "bundled", "bundled-reader", "bundled-searcher", "bundled-listener", "bundled-seeker", "bundled-analyst",
    "bundled-viewer",
)  # fmt: skip
"""Models that come with the package: bases of Memory-R1, MemAgent, MemSearcher, PersonaTree, ESearch, Datarus and
UAV-VL-R1."""
QUANTISED = "int8:"
"""Before the name of a model whose weights are to be integers."""
CHOOSER = "bundled-chooser"
"""The chooser that comes with the package."""


def bundled_folder(name: str = "bundled") -> Path:
    """Where a bundled base lies."""
    return Path(str(resources.files("memorist"))) / "models" / name


def open_role(name: str) -> Any:
    """A policy of whichever kind the name says: "linear" or "linear@TAU" and folders that hold a reranker,
    "bundled-chooser" and folders that hold a chooser, "vllm:URL#MODEL" or "sglang:URL#MODEL" a server that samples,
    names of the catalogue's teachers a heuristic, which can only act, else a causal language model.

    Raises:
        PolicyError: there is none, or what it needs is not installed.
    """
    if name.partition("@")[0] == "linear" or (Path(name) / "reranker.npz").is_file():
        from memorist.models.choices import RerankerPolicy
        from memorist.models.reranker import open_reranker

        return RerankerPolicy(open_reranker(name), Path(name).name)
    if name == CHOOSER or (Path(name) / "model.onnx").is_file():
        from memorist.models.chooser_policy import ChooserPolicy

        return ChooserPolicy.load(bundled_folder(name) if name == CHOOSER else name)
    if name.partition(":")[0] in ("vllm", "sglang"):
        from memorist.models.token_server import open_server

        return open_server(name)
    if name in offered("teachers"):
        return find("teachers", name, "models")()
    return open_policy(name)


def open_policy(name: str) -> CausalPolicy:
    """A local causal language model; behind "int8:" one whose weights are integers, which can act and not learn.

    Raises:
        PolicyError: torch and transformers are not installed, or there is no such model.
    """
    try:
        import memorist.models.causal  # noqa: F401 - where torch or transformers is not installed it says so
    except ImportError as error:
        raise PolicyError("local models need torch and transformers: pip install 'memorist[train]'") from error
    if name.startswith(QUANTISED):
        return _as_integers(name.removeprefix(QUANTISED))
    if name in BUNDLED:
        folder = str(bundled_folder(name))
        return _kind(folder).load(folder, name)
    if (adapter := Path(name) / "adapter_config.json").is_file():
        from memorist.models.adapters import load_adapter

        base = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]
        return load_adapter(Path(name), open_policy(base), Path(name).name)
    return _kind(name).load(name)


def _as_integers(name: str) -> CausalPolicy:
    if (Path(name) / "adapter_config.json").is_file():
        raise PolicyError(f"{QUANTISED}{name} is an adapter; expected a whole model (transformers can merge the two)")
    folder = str(bundled_folder(name)) if name in BUNDLED else name
    return _kind(folder).load(folder, f"{QUANTISED}{name}", int8=True)


def _kind(name: str) -> type[CausalPolicy]:
    if _sees(name):
        from memorist.models.vision import VisionPolicy

        return VisionPolicy
    from memorist.models.causal import CausalPolicy

    return CausalPolicy


def _sees(name: str) -> bool:
    """Whether a folder, or a name on a hub, is of a model that is shown pictures."""
    from transformers import AutoConfig

    try:
        return hasattr(AutoConfig.from_pretrained(name), "vision_config")
    except (OSError, ValueError, KeyError):
        return False  # what is wrong with it is told by who opens it


def quiet_libraries() -> None:
    """Silence the progress bars that libraries draw for loading a small file."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        from transformers.utils import logging
    except ImportError:
        return
    logging.disable_progress_bar()
