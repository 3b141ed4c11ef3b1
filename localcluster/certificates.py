"""Keys and certificates of a cluster, made with the openssl program.

One certificate authority signs everything: servers by their names and addresses, clients by user (common name) and
groups (organisations), which is how the API server reads them. What lies there already is kept, so a cluster that is
started again keeps its identity. Private keys are readable by their owner alone.

Everything is valid for ten years: the state of a local cluster does not live that long, and a clock that a test moves
by hours breaks nothing.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from localcluster.commands import run
from localcluster.errors import LocalClusterError

VALID_DAYS = 3650
"""How long certificates are valid."""


def make_key_pair(private: Path, public: Path) -> None:
    """Make an RSA key pair for signing service account tokens, unless both files exist."""
    if private.exists() and public.exists():
        return
    private.parent.mkdir(parents=True, exist_ok=True)
    run(["openssl", "genrsa", "-out", str(private), "2048"])
    private.chmod(0o600)
    run(["openssl", "rsa", "-in", str(private), "-pubout", "-out", str(public)])


class Authority:
    """A certificate authority in a directory.

    Attributes:
        directory: Holds ``ca.crt`` and ``ca.key``, and ``NAME.crt`` and ``NAME.key`` of everything signed.
        certificate: The authority's own certificate.
    """

    def __init__(self, directory: Path) -> None:
        """Open the authority in a directory, and make its key and certificate when they are missing."""
        self.directory = directory
        self.certificate = directory / "ca.crt"
        self._key = directory / "ca.key"
        if not (self.certificate.exists() and self._key.exists()):
            directory.mkdir(parents=True, exist_ok=True)
            _make_key(self._key)
            run(
                [
                    *("openssl", "req", "-x509", "-new", "-key", str(self._key), "-out", str(self.certificate)),
                    *("-days", str(VALID_DAYS), "-subj", "/CN=localcluster-ca"),
                    *("-addext", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature"),
                ]
            )

    def server(
        self, name: str, *, hosts: Sequence[str], user: str = "", groups: Sequence[str] = ()
    ) -> tuple[Path, Path]:
        """Return certificate and key of a server.

        Args:
            name: The files' name, and the common name when there is no ``user``.
            hosts: The DNS names and IP addresses that clients may call it by.
            user: A user name, when the server also is a client with this certificate (the kubelet).
            groups: The groups of that user.
        """
        names = ",".join(f"IP:{host}" if _is_address(host) else f"DNS:{host}" for host in hosts)
        extensions = f"extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName={names}\n"
        return self._sign(name, subject=_subject(user or name, groups), extensions=extensions)

    def client(self, name: str, *, user: str, groups: Sequence[str] = ()) -> tuple[Path, Path]:
        """Return certificate and key of a client.

        Args:
            name: The files' name.
            user: The user that the API server sees.
            groups: The groups that the API server sees; ``system:masters`` may do everything.
        """
        return self._sign(name, subject=_subject(user, groups), extensions="extendedKeyUsage=clientAuth\n")

    def _sign(self, name: str, *, subject: str, extensions: str) -> tuple[Path, Path]:
        certificate, key = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        if certificate.exists() and key.exists():
            return certificate, key
        request, config = self.directory / f"{name}.csr", self.directory / f"{name}.ext"
        _make_key(key)
        config.write_text("basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\n" + extensions)
        run(["openssl", "req", "-new", "-key", str(key), "-out", str(request), "-subj", subject])
        unfinished = certificate.with_suffix(".unfinished")
        run(
            [
                *("openssl", "x509", "-req", "-in", str(request), "-out", str(unfinished)),
                *("-CA", str(self.certificate), "-CAkey", str(self._key), "-extfile", str(config)),
                *("-days", str(VALID_DAYS), "-set_serial", str(int.from_bytes(os.urandom(16), "big") >> 1)),
            ]
        )
        unfinished.rename(certificate)
        request.unlink()
        config.unlink()
        return certificate, key


def _make_key(path: Path) -> None:
    run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(path)])
    path.chmod(0o600)


def _subject(user: str, groups: Sequence[str]) -> str:
    for word in (user, *groups):
        if not word or "/" in word or "=" in word:
            raise LocalClusterError(f"{word!r} cannot stand in a certificate's subject: it is empty or has / or =")
    return "".join(f"/O={group}" for group in groups) + f"/CN={user}"


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()
