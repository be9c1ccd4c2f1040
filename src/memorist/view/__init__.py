"""Pages in the browser that show a run or a memory; they read and never write."""
