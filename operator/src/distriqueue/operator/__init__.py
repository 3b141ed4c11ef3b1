"""The program: joins kube, broker and core, and nothing more."""
