"""The documentation, and what generates the parts of it that code knows better."""
