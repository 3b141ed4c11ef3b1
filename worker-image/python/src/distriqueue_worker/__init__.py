"""The Python worker: claims jobs, runs handlers, reports."""
