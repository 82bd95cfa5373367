"""Keys of a session: X25519 agreement (RFC 7748), HKDF-SHA256 (RFC 5869), AES-256-CTR key streams as masks, and
ChaCha20-Poly1305 (RFC 8439) around shares.

Every key is derived for one purpose, one session and one pair, and used once; all randomness is the operating system's.
"""

import secrets
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shared_model.errors import ContractError
from shared_model.secure.ring import Vector, bytes_for

KEY_BYTES, NONCE_BYTES = 32, 12
_NAMESPACE = b"consilium secure aggregation 1: "


def new_secret() -> bytes:
    """An X25519 private key, or a seed: 32 random bytes."""
    return secrets.token_bytes(KEY_BYTES)


def public_of(private: bytes) -> bytes:
    """The public key of a private one."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agreed(private: bytes, public: bytes, session: str, purpose: str) -> bytes:
    """The key that two sites share, the same on both sides. Raises ContractError for a public key that fixes it."""
    try:
        secret = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise ContractError("secure aggregation: a public key that is none") from error
    pair = b"".join(sorted((public_of(private), public)))
    return _derived(secret, session, purpose.encode() + pair)


def commitment_of(seed: bytes, session: str) -> bytes:
    """What a seed can be recognised by, and not be found from: it is 256 random bits."""
    return sha256(_NAMESPACE + b"commitment" + session.encode() + seed).digest()


def own_mask(seed: bytes, session: str, size: tuple[int, int]) -> Vector:
    """A site's own mask."""
    return _mask(_derived(seed, session, b"own mask"), size)


def pair_mask(private: bytes, public: bytes, session: str, size: tuple[int, int]) -> Vector:
    """The mask that one of a pair adds and the other subtracts."""
    return _mask(agreed(private, public, session, "pair mask"), size)


def seal(key: bytes, content: bytes, associated: bytes) -> bytes:
    """Encrypted and authenticated under a random nonce, which goes first."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, content, associated)


def unseal(key: bytes, sealed: bytes, associated: bytes) -> bytes:
    """Raises ValueError unless it was sealed under this key, for this session, sender and receiver, and not changed."""
    try:
        return ChaCha20Poly1305(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], associated)
    except (InvalidTag, ValueError) as error:
        raise ValueError("it was not sealed for this, or has been changed") from error


def _mask(key: bytes, size: tuple[int, int]) -> Vector:
    """The key is used for this alone, so the counter starts at zero."""
    stream = Cipher(AES(key), CTR(bytes(16))).encryptor()
    return Vector.from_bytes(stream.update(bytes(bytes_for(size))), size[0])


def _derived(secret: bytes, session: str, purpose: bytes) -> bytes:
    info = _NAMESPACE + purpose
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=session.encode(), info=info).derive(secret)
