"""Plan before you run: what a model and a workload need on given hardware, without loading anything.

`config` reads a model into an `architecture` of `layers`; `workload` and `hardware` say what is run on what; `planner`
puts them together by `speed` and `network`; `whatif` compares, `show` prints, `paper` checks against the source. Only
`measure` and `calibrate` import torch. `numerics` and `routing` are reference functions beside it.
"""

from memorist.fit.plan.config import open_model, read_config
from memorist.fit.plan.hardware import Hardware, open_hardware
from memorist.fit.plan.planner import Plan, make_plan
from memorist.fit.plan.workload import Workload

__all__ = ["Hardware", "Plan", "Workload", "make_plan", "open_hardware", "open_model", "read_config"]
