"""The gateway's certificate: one pair of files for REST and gRPC, looked at again with every new connection.

Guarantees: when the files change (a Secret is rotated), connections made from then on get the new certificate and
those that exist go on. A pair that is half written, or wrong, is logged and leaves the last good one in use; it is
tried again a second later. Certificate and key that are served always belong together. Fails with `TlsError`
at the start only.

It is looked at when somebody connects, and not by a clock: there is no moment at which a renewed certificate lies
there and an old one is shown.
"""

import logging
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

_LOG: Final = logging.getLogger(__name__)

RETRY_SECONDS: Final = 1.0
"""How long a pair of files that could not be used is left alone."""

_Signature = tuple[tuple[int, int, int], ...]
"""What changes when a file does."""


class TlsError(Exception):
    """There is no certificate to start with; the message says which file and why."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """A certificate with its key, as it was read.

    Attributes:
        context: For servers on Python's TLS.
        certificate: The PEM of the certificate and its chain.
        key: The PEM of its key.
    """

    context: ssl.SSLContext
    certificate: bytes
    key: bytes


class Certificates:
    """The certificate that is shown, always that of the files."""

    def __init__(self, certificate: Path, key: Path, *, now: Callable[[], float] = time.monotonic) -> None:
        """Read the files.

        Args:
            certificate: The certificate with its chain, PEM.
            key: Its key, PEM, without a password.
            now: The monotonic clock, in seconds.

        Raises:
            TlsError: They cannot be used.
        """
        self._files = (certificate, key)
        self._now = now
        self._lock = threading.Lock()  # gRPC asks from threads of its own
        self._failed_at = float("-inf")
        try:
            self._signature = self._sign()
            self._pair = self._read()
        except (OSError, ValueError) as error:
            raise TlsError(f"the certificate {certificate} with the key {key} cannot be used: {error}") from error
        self.context: Final = _server_context()
        """For uvicorn (``ssl_context_factory=lambda config, default: certificates.context``) and asyncio's servers. It
        hands every connection over to the context of the newest certificate."""
        self.context.load_cert_chain(certificate, key)
        self.context.sni_callback = self._on_hello

    def _on_hello(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._newest().context

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """Return credentials for a gRPC server's `add_secure_port`. Keep this object as long as the server."""
        # Called for every connection; what it returns is gRPC's to free, so it is made each time.
        return grpc.dynamic_ssl_server_credentials(self._grpc_configuration(), self._grpc_configuration)

    def _grpc_configuration(self) -> grpc.ServerCertificateConfiguration:
        pair = self._newest()
        return grpc.ssl_server_certificate_configuration([(pair.key, pair.certificate)])

    def peer_context(self) -> ssl.SSLContext:
        """Return a client's context for another replica, which shows the same certificate, at whatever address.

        Only that certificate is trusted (or one that its chain's authorities signed), whatever its names are.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = False  # pods are reached by their addresses, which are in nobody's certificate
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=self._newest().certificate.decode("ascii", errors="replace"))
        return context

    def _newest(self) -> _Pair:
        with self._lock:
            if self._now() - self._failed_at >= RETRY_SECONDS:
                try:
                    self._renew()
                except (OSError, ValueError) as error:
                    self._failed_at = self._now()
                    name = self._files[0]
                    _LOG.warning("the renewed certificate %s cannot be used, the last one stays: %s", name, error)
            return self._pair

    def _renew(self) -> None:
        signature = self._sign()
        if signature == self._signature:
            return
        pair = self._read()
        if signature != self._sign():
            raise ValueError("the files changed while they were read")
        self._pair, self._signature = pair, signature
        _LOG.info("the certificate %s was renewed", self._files[0])

    def _sign(self) -> _Signature:
        states = [path.stat() for path in self._files]
        return tuple((state.st_mtime_ns, state.st_ino, state.st_size) for state in states)

    def _read(self) -> _Pair:
        certificate, key = self._files
        context = _server_context()
        context.load_cert_chain(certificate, key, password=_no_password)
        return _Pair(context=context, certificate=certificate.read_bytes(), key=key.read_bytes())


def _no_password() -> str:
    raise ValueError("the key is locked by a password; it has to be without one")


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context
