"""Mixtures of experts on smaller machines: PreMoe (arXiv 2505.17639) and EASY-EP (arXiv 2504.06792).

`shards` and `checkpoint` read a model's files and say which tensor belongs to which expert; `calibrate` runs it layer
by layer and keeps `statistics`; `scores` ranks experts and `select` chooses them; `prune` writes a standard checkpoint;
`lazy` loads only the experts of a task, which `retrieve` recognises; `roles` lets several tasks share a model. `masks`
exchanges choices with EASY-EP, `simulate` masks a loaded model, `quality` says what that changes, `report` shows all.
Only `calibrate`, `lazy`, `quality`, `simulate` and `weights` import torch.
"""
