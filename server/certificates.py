"""The federation's own CA, and the certificates that it issues to the server."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from protocol.certificates import as_name, check_authority, read_certificate
from protocol.errors import CertificateError

CA_DAYS = 3653
SERVER_DAYS = 365
CLOCK_SLACK = timedelta(minutes=5)
"""A certificate begins this much earlier, since clocks differ; Flower tolerates no more than this either."""


@dataclass(frozen=True)
class Issued:
    """A certificate and its private key, in PEM."""

    certificate: bytes
    key: bytes


def new_authority(federation: str, now: datetime, days: int = CA_DAYS) -> Issued:
    """A CA that signs itself and may sign servers, but no further CA."""
    key = ec.generate_private_key(ec.SECP384R1())
    name = _name(f"fedmumc CA of {federation}", federation)
    usage = _usage(key_cert_sign=True, crl_sign=True)
    builder = (
        _builder(name, name, key.public_key(), now, now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    return Issued(builder.sign(key, SHA384()).public_bytes(Encoding.PEM), _private(key))


def new_server(authority: Issued, names: Sequence[str], now: datetime, days: int = SERVER_DAYS) -> Issued:
    """A server's key and its certificate for these DNS names and IP addresses; the first is the one on its face.

    Raises:
        CertificateError: the days are no number of days, a name is none, or the CA's two files are not a pair.
        ExpiredError: the CA has ended, or ends before the certificate would.
    """
    ca, ca_key = open_authority(authority, now)
    if days < 1:
        raise CertificateError(f"a certificate of {days} days is none; choose at least 1")
    last = now + timedelta(days=days)
    if last > ca.not_valid_after_utc:
        raise CertificateError(
            f"a certificate of {days} days would outlive its CA, which ends on {ca.not_valid_after_utc:%Y-%m-%d}; "
            "choose fewer days"
        )
    key = ec.generate_private_key(ec.SECP384R1())
    subject = _name(names[0], _federation(ca))
    builder = (
        _builder(subject, ca.subject, key.public_key(), now, last)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([as_name(name) for name in dict.fromkeys(names)]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
    )
    return Issued(builder.sign(ca_key, SHA384()).public_bytes(Encoding.PEM), _private(key))


def open_authority(authority: Issued, now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """The CA's certificate and key, once they are known to be a pair.

    Raises:
        CertificateError: they are not, or the certificate is not valid now.
    """
    ca = read_certificate(authority.certificate, "CA certificate")
    check_authority(ca, now)
    try:
        key = load_pem_private_key(authority.key, None)
    except (TypeError, ValueError):
        raise CertificateError(
            "the CA's key is no private key in PEM; put the right file back from the backup"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != ca.public_key():
        raise CertificateError("the CA's key and certificate are no pair; put both back from the same backup")
    return ca, key


def now_utc() -> datetime:
    """This machine's clock, to the second."""
    return datetime.now(UTC).replace(microsecond=0)


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, first: datetime, last: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(first - CLOCK_SLACK)
        .not_valid_after(last)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _name(common: str, federation: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, federation[:64]),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, common[:64]),
        ]
    )


def _federation(ca: x509.Certificate) -> str:
    return str(ca.subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)[0].value)


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
