"""The certificate that is shown is that of the files, whatever becomes of them; handshakes in memory."""

import shutil
import ssl
from pathlib import Path

import pytest

from distriqueue.gateway.tls import RETRY_SECONDS, Certificates, TlsError
from localcluster.certificates import Authority


class Files:
    """A pair of files as a Secret's, its authority, and a clock."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority(directory / "ca")
        self.certificate, self.key = directory / "tls.crt", directory / "tls.key"
        self.time = 0.0

    def issue(self, name: str, *, key: bool = True) -> bytes:
        """Put a new certificate there; without its key, which then is that of the last one."""
        certificate, its_key = self.authority.server(name, hosts=["gateway.test"])
        shutil.copyfile(certificate, self.certificate)
        if key:
            shutil.copyfile(its_key, self.key)
        return ssl.PEM_cert_to_DER_cert(certificate.read_text())

    def load(self) -> Certificates:
        return Certificates(self.certificate, self.key, now=lambda: self.time)

    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority.certificate))


@pytest.fixture(name="files")
def files_fixture(tmp_path: Path) -> Files:
    return Files(tmp_path)


def shown(server: ssl.SSLContext, client: ssl.SSLContext, *, name: str | None = "gateway.test") -> bytes:
    """Shake hands, and return the certificate that the client saw."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(to_client, to_server, server_hostname=name)
    other = server.wrap_bio(to_server, to_client, server_side=True)
    done: set[ssl.SSLObject] = set()
    for _ in range(10):
        for end in (one, other):
            if end not in done:
                try:
                    end.do_handshake()
                    done.add(end)
                except ssl.SSLWantReadError:
                    continue
    assert len(done) == 2
    seen = one.getpeercert(binary_form=True)
    assert seen is not None
    return seen


def test_a_renewed_certificate_is_shown_to_the_next_who_connects(files: Files) -> None:
    first = files.issue("first")
    certificates = files.load()
    assert shown(certificates.context, files.client()) == first
    second = files.issue("second")
    assert shown(certificates.context, files.client()) == second
    assert second != first


def test_who_names_no_server_gets_the_newest_too(files: Files) -> None:
    files.issue("first")
    certificates = files.load()
    second = files.issue("second")
    client = files.client()
    client.check_hostname = False
    assert shown(certificates.context, client, name=None) == second


def test_half_a_pair_leaves_the_last_one_in_use_until_it_is_whole(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    first = files.issue("first")
    certificates = files.load()
    second = files.issue("second", key=False)
    for _ in range(3):
        assert shown(certificates.context, files.client()) == first
    assert caplog.text.count("cannot be used") == 1
    files.issue("second")
    assert shown(certificates.context, files.client()) == first  # it is left alone for a moment
    files.time = RETRY_SECONDS
    assert shown(certificates.context, files.client()) == second


def test_files_that_are_gone_leave_the_last_pair_in_use(files: Files) -> None:
    first = files.issue("first")
    certificates = files.load()
    files.key.unlink()
    assert shown(certificates.context, files.client()) == first


def test_the_start_needs_a_pair_that_can_be_used(files: Files) -> None:
    with pytest.raises(TlsError, match=r"tls.crt"):
        files.load()
    files.issue("first")
    files.key.write_text("no key")
    with pytest.raises(TlsError, match=r"tls.key"):
        files.load()


def test_old_versions_of_tls_are_refused(files: Files) -> None:
    files.issue("first")
    assert files.load().context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_replicas_trust_the_certificate_that_they_share_and_no_other(files: Files, tmp_path: Path) -> None:
    first = files.issue("first")
    certificates = files.load()
    assert shown(certificates.context, certificates.peer_context(), name="10.1.2.3") == first
    stranger = Files(tmp_path / "stranger")
    stranger.issue("first")
    with pytest.raises(ssl.SSLCertVerificationError):
        shown(stranger.load().context, certificates.peer_context(), name="10.1.2.3")
