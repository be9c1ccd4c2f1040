"""A household in which things are looked for: by walking, by asking, by remembering (ESearch-R1, arXiv 2512.18571; the
numbers are our choice, the published ones are not public)."""
