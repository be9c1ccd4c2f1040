"""LikeBench: whether people would like how an assistant adapts to them, over sessions, from the dialogue alone.

After arXiv 2512.13077, whose code and data are not public: personas, rubrics, judge and sizes are ours (see
docs/likebench.md).
"""
