"""What the program says when it cannot do what it was asked, and with which exit code it ends.

Guarantees: every failure that is expected is a `CliError`: one sentence that says what to do. The exit codes are here
and in docs/cli.md, and nowhere else.
"""

from enum import IntEnum

from distriqueue.kube.errors import Forbidden, KubeError, NoCredentials, NotFound, Refused, Throttled, Unanswered

_HTTP_UNAUTHORIZED = 401


class Exit(IntEnum):
    """How the program ends."""

    FINE = 0
    """Done; with `--wait`: the job has succeeded."""
    FAILED = 1
    """It could not be done, or not all of it; with `--wait`: the job is Failed."""
    USAGE = 2
    """The command line or the manifest is wrong."""
    DEAD = 3
    """With `--wait`: the job is Dead."""
    CANCELLED = 4
    """With `--wait`: the job is Cancelled."""
    TIMED_OUT = 5
    """The time of `--timeout` is over; the job goes on."""
    NO_ACCESS = 6
    """The API server cannot be reached, or does not let the caller do this."""
    INTERRUPTED = 130
    """Ctrl-C."""


class CliError(Exception):
    """The program ends with this sentence and this code."""

    def __init__(self, sentence: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.code = code


def usage(sentence: str) -> CliError:
    """What was written on the command line makes no sense."""
    return CliError(sentence, Exit.USAGE)


def translated(error: KubeError, *, server: str = "") -> CliError:
    """Say what an error of the API server means for whoever sits at the terminal."""
    code = Exit.FAILED
    where = f" ({server})" if server else ""
    match error:
        case NoCredentials():
            code = Exit.NO_ACCESS
            said = f"{error.message}; name a kubeconfig with --kubeconfig or KUBECONFIG, and a context with --context"
        case Forbidden() if error.code == _HTTP_UNAUTHORIZED:
            code = Exit.NO_ACCESS
            said = f"the API server{where} does not know you: log in again, or choose another --context"
        case Forbidden():
            code = Exit.NO_ACCESS
            said = f"{error.message}; ask for the role 'edit' (or 'view') in that namespace"
        case Throttled():
            code = Exit.NO_ACCESS
            said = "the API server has too much to do and refused the request: try again in a moment"
        case Unanswered():
            code = Exit.NO_ACCESS
            said = f"the API server{where} does not answer: check the network and --context ({error.message})"
        case NotFound() if "could not find the requested resource" in error.message:
            said = "this cluster has no DistributedJobs: install the definitions (kubectl apply --server-side -f crds/)"
        case Refused():
            said = error.message
        case _:
            said = error.message
    return CliError(" ".join(said.split()), code)
