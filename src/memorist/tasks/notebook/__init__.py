"""Questions about tables that are answered in a notebook, and the confined kernels that run its cells."""
