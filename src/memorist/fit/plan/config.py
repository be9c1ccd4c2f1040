"""Reading a transformers-style config.json: strictly, and saying which rule was used.

A field that this reader does not use, or that contradicts another one, is warned about by name. What a configuration
leaves to the code of its family (biases, whether embeddings are tied) stands in `fields.FAMILIES`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from memorist.errors import PlanError, nearest
from memorist.fit.plan.architecture import FP8_BLOCK, STORAGES, Architecture, Storage
from memorist.fit.plan.config_layers import read_layers
from memorist.fit.plan.fields import FAMILIES, Family, Fields
from memorist.models.registry import bundled_folder

WRAPPED = ("text_config", "language_config", "llm_config")
"""Where multimodal configurations keep that of their language model."""

DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "bf16"}


@dataclass(frozen=True, slots=True)
class Model:
    """What was read, with the rules that were used and what to be wary of."""

    architecture: Architecture
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def shipped() -> dict[str, Path]:
    """Configurations that come with the package, by name."""
    folder = Path(str(resources.files("memorist"))) / "fit" / "plan" / "models"
    return {path.stem: path for path in sorted(folder.glob("*.json"))} | {"bundled": bundled_folder()}


def open_model(name_or_path: str | Path) -> Model:
    """Read a model's folder, its config.json, or a shipped configuration by name.

    Raises:
        PlanError: there is none, it is not JSON, or it is no configuration that can be planned with.
    """
    path = Path(name_or_path)
    if not path.exists():
        known = shipped()
        if str(name_or_path) not in known:
            hint = nearest(str(name_or_path), known)
            raise PlanError(f"model {str(name_or_path)!r} is neither a folder, a file nor shipped; {hint}")
        path = known[str(name_or_path)]
    file = path / "config.json" if path.is_dir() else path
    data = _json(file)
    side = file.with_name("mamba_config.json")
    if side.is_file():
        data = {**data, "mamba_config": _json(side)}
    name = file.stem if file.name != "config.json" else file.resolve().parent.name
    model = read_config(data, name, str(file))
    warning = _check_size(model.architecture, file.parent) if path.is_dir() else None
    return Model(model.architecture, model.notes, (*model.warnings, warning) if warning else model.warnings)


def _json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlanError(f"{file}: no JSON that can be read ({error}); expected a model's config.json") from error
    if not isinstance(data, dict):
        raise PlanError(f"{file}: expected an object of fields, got {type(data).__name__}")
    return data


def _check_size(architecture: Architecture, folder: Path) -> str | None:
    """A warning where the checkpoint's index tells another size than the configuration: off by more than 2 %."""
    index = folder / "model.safetensors.index.json"
    total = _json(index).get("metadata", {}).get("total_size") if index.is_file() else None
    if total is None:
        return None
    ratio = architecture.weight_bytes() / total
    if abs(ratio - 1) <= 0.02:
        return None
    return f"{index.name} says {total} bytes, the configuration {architecture.weight_bytes():.0f} ({ratio:.2f} times)"


def read_config(data: Mapping[str, Any], name: str = "model", where: str = "config") -> Model:
    """A model from the fields of its config.json.

    Raises:
        PlanError: a field that is needed is missing or impossible, or the model is not a decoder-only language model.
    """
    fields = Fields(data, where)
    for wrapper in WRAPPED:
        if isinstance(inner := data.get(wrapper), Mapping):
            fields = Fields({**inner, **_outer(data, inner)}, f"{where}: {wrapper}")
            fields.notes.append(f"multimodal wrapper: the language model in {wrapper}; other towers are not counted")
            break
    else:
        if "vision_config" in data or "audio_config" in data or "thinker_config" in data:
            raise PlanError(
                f"{where}: a multimodal configuration without any of {', '.join(WRAPPED)}; give the language model's"
            )
    if fields.get("is_encoder_decoder"):
        raise PlanError(f"{where}: an encoder-decoder model; only decoder-only language models can be planned")
    kind = fields.get("model_type")
    if kind not in FAMILIES:
        fields.warnings.append(f"model_type {kind!r} is not known: taken as Llama-like; {nearest(str(kind), FAMILIES)}")
    family = FAMILIES.get(kind, Family())
    hidden, vocab = fields.number("hidden_size"), fields.number("vocab_size")
    architecture = Architecture(
        name,
        hidden,
        vocab,
        tied=bool(fields.get("tie_word_embeddings", family.tied)),
        layers=read_layers(fields, family, hidden),
        storage=_storage(fields),
        window=fields.number("max_position_embeddings", default=0, least=0),
    )
    if modules := fields.number("num_nextn_predict_layers", "num_mtp_layers", default=0, least=0):
        fields.notes.append(f"MTP modules, {modules}: not counted")
    fields.leftover()
    return Model(architecture, tuple(fields.notes), tuple(fields.warnings))


def _outer(data: Mapping[str, Any], inner: Mapping[str, Any]) -> dict[str, Any]:
    """What wrappers say outside for the language model inside."""
    names = ("quantization_config", "dtype", "torch_dtype", "tie_word_embeddings")
    return {name: data[name] for name in names if name in data and inner.get(name) is None}


def _storage(fields: Fields) -> Storage:
    dtype = fields.first("dtype", "torch_dtype")
    if dtype is None:
        fields.notes.append("no dtype: weights taken as 16-bit")
    elif dtype not in DTYPES:
        raise PlanError(f"{fields.where}: dtype is {dtype!r}; {nearest(str(dtype), DTYPES)}")
    plain = STORAGES[DTYPES[dtype or "bfloat16"]]
    quantised = fields.get("quantization_config")
    if quantised is None:
        return plain
    method = quantised.get("quant_method") if isinstance(quantised, Mapping) else quantised
    bits, group = (quantised.get(key) for key in ("bits", "group_size")) if isinstance(quantised, Mapping) else (0, 0)
    found: Storage | None = None
    if method == "fp8":
        found = Storage("fp8", FP8_BLOCK, FP8_BLOCK, plain.rest)
    elif method == "mxfp4":
        # Four bits and one scale byte for every 32; experts only.
        found = Storage("mxfp4", plain.matrix, 0.5 + 1 / 32, plain.rest)
    elif method in ("gptq", "awq") and isinstance(bits, int) and isinstance(group, int) and group > 0:
        # Codes, and for each group a 16-bit scale and a zero point.
        size = bits / 8 + (2 + bits / 8) / group
        found = Storage(f"{method} {bits} bit", size, size, plain.rest)
    elif method == "bitsandbytes":
        size = STORAGES["4bit" if quantised.get("load_in_4bit") else "int8"].matrix
        found = Storage("bitsandbytes", size, size, plain.rest)
    if found is None:
        raise PlanError(
            f"{fields.where}: quantization_config has method {method!r} with {bits!r} bits in groups of {group!r}; "
            "known are fp8, mxfp4, bitsandbytes, and gptq and awq with bits and group_size. Give the configuration "
            "without quantization_config, and how weights are stored by --weights"
        )
    fields.notes.append(f"quantised checkpoint ({found.name}): training in full needs its weights in 16 bits")
    return found
