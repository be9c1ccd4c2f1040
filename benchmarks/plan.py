"""How right the planner is: parameters of ten public models, the paper's numbers, and three tiny models measured here.

    python benchmarks/plan.py [--json FILE] [--quick] [--only-computed]

Calibrates this machine first (into a temporary folder, the user's own calibration stays), then runs each model in a
process of its own, so that memory of one is not seen in another. Leave the machine alone while it runs: about three
minutes. The three models are none of those that the calibration fits. `--quick` only tries the procedure: smaller
models and a calibration that is worth nothing. `--only-computed` leaves what must be measured as null.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from memorist.fit.plan.config import open_model, shipped
from memorist.fit.plan.hardware import HERE, open_hardware
from memorist.fit.plan.paper import paper_numbers
from memorist.fit.plan.planner import make_plan
from memorist.fit.plan.speed import decode_step

PUBLIC = (
    "bamba-9b", "deepseek-v3", "gemma-2-9b", "gpt-oss-20b", "llama-3.1-8b", "mixtral-8x7b", "olmoe-1b-7b",
    "qwen2.5-7b", "qwen3-235b-a22b", "qwen3-8b",
)  # fmt: skip
# Layers, hidden size, vocabulary; prompts, group size, prompt and new tokens of an update; batch of decoding.
MODELS = {
    "1M": ((4, 128, 1024), (16, 8, 224, 16), 64),
    "5M": ((6, 256, 2048), (8, 8, 192, 16), 32),
    "18M": ((8, 416, 4096), (8, 4, 256, 32), 16),
}
QUICK = {"tiny": ((1, 32, 64), (2, 2, 16, 4), 2)}
BUDGET, NEW = 4096, 16
MEASURED = {
    "plan.update-time.error": ("update", "seconds of an update"),
    "plan.peak-memory.error": ("memory", "bytes over those of the process before the model"),
    "plan.decode-rate.error": ("decode", "seconds of a decode step"),
}


def exact_parameters(name: str) -> int:
    """As transformers builds the model, without its weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = json.loads(shipped()[name].read_text(encoding="utf-8"))
    config.pop("quantization_config", None)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(config.pop("model_type"), **config))
    return sum(parameter.numel() for parameter in model.parameters())


def parameters_row() -> dict[str, Any]:
    errors = {name: abs(open_model(name).architecture.parameters / exact_parameters(name) - 1) for name in PUBLIC}
    worst = max(errors, key=lambda name: errors[name])
    return row("plan.parameters.max-error", errors[worst], len(errors), worst=worst)


def paper_row() -> dict[str, Any]:
    numbers = paper_numbers()
    missed = [number.name for number in numbers if not number.reproduced]
    return row("plan.paper-numbers.reproduced-share", 1 - len(missed) / len(numbers), len(numbers), missed=missed)


def measure_one(name: str, sizes: Mapping[str, Any]) -> dict[str, list[float]]:
    """Predicted and measured values of one model, in this process."""
    from memorist.fit.plan.measure import (
        Shape,
        TrialUpdate,
        decode_seconds,
        open_shape,
        trainer_workload,
        update_seconds,
    )
    from memorist.models.usage import memory_bytes, peak_memory_bytes

    (layers, hidden, vocab), step, batch = sizes[name]
    shape, workload = Shape(layers, hidden, vocab), trainer_workload(*step, BUDGET)
    # What is loaded on first use is not the model's.
    TrialUpdate(open_shape(Shape(1, 32, 64)), trainer_workload(1, 2, 8, 4, BUDGET), 64).update()
    before = memory_bytes()
    policy = open_shape(shape)
    trial = TrialUpdate(policy, workload, vocab)
    updated = update_seconds(trial)
    used = peak_memory_bytes() - before
    decoded = decode_seconds(policy, vocab, batch, step[2], NEW)
    here = open_hardware(HERE)
    plan = make_plan(shape.architecture(), workload, here)
    decoding = replace(workload, prompts=1, group_size=batch, new_tokens=NEW)
    predicted = decode_step(shape.architecture(), decoding, here, batch).estimate
    assert here.calibration is not None
    return {
        "update": [plan.speed.update.estimate, updated],
        "memory": [plan.memory.planned - here.calibration.base, float(used)],
        "decode": [predicted, decoded],
    }


def measured_rows(models: Mapping[str, Any], quick: bool) -> list[dict[str, Any]]:
    """Calibrate, measure each model in its own process, and keep the largest error of each quantity."""
    from_code = "from memorist.fit.plan import calibrate as c, hardware as h; h.save_calibrated(c.calibrate({}))"
    calibrate = from_code.format("c.QUICK" if quick else "")
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"MEMORIST_CACHE": folder}
        subprocess.run([sys.executable, "-c", calibrate], env=environment, check=True)
        found = {}
        for name in models:
            command = [sys.executable, __file__, "--one", name, *(["--quick"] if quick else [])]
            out = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            found[name] = json.loads(out.stdout.splitlines()[-1])
    rows = []
    for name, (key, what) in MEASURED.items():
        pairs = {model: values[key] for model, values in found.items()}
        errors = {model: abs(predicted / measured - 1) for model, (predicted, measured) in pairs.items()}
        rows.append(row(name, max(errors.values()), len(errors), what=what, predicted_and_measured=pairs))
    return rows


def row(name: str, value: float | None, n: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "row": name,
        "value": None if value is None else round(value, 7),
        "low": None,
        "high": None,
        **({"n": n, "seeds": 1} if n else {}),
        "unit": "share",
        "peer": None,
        "peer_value": None,
        "how": "python benchmarks/plan.py",
        "device": device(),
        "date": datetime.now(UTC).date().isoformat(),
        **more,
    }


def device() -> str:
    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    threads = torch.get_num_threads()
    return f"{threads} thread{'s' if threads > 1 else ''}, {platform.machine()} CPU"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--quick", action="store_true", help="only try the procedure")
    parser.add_argument("--only-computed", action="store_true", help="measure nothing")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    models = QUICK if args.quick else MODELS
    if args.one:
        print(json.dumps(measure_one(args.one, models)))
        return
    rows = [parameters_row(), paper_row()]
    if args.only_computed:
        why = "needs a machine that does nothing else; not measured yet"
        rows += [row(name, None, why=why) for name in MEASURED]
    else:
        rows += measured_rows(models, args.quick)
    for one in rows:
        print(json.dumps(one))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
