"""`kubectl djobs`: jobs from the command line, with the caller's own kubeconfig and rights, and without a gateway.

`apps` has the commands and imports what they need when they are called: a program that completes a word must not take
half a second to load an HTTP client. Fails with `errors.CliError`, which is one sentence and an exit code.
"""
