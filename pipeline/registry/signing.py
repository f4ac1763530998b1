"""Signs published versions, and checks their signatures, by OpenSSF Model Signing.

Anybody can check them with its command `model_signing verify`, too: https://github.com/sigstore/model-transparency.
"""

from pathlib import Path

from pipeline.errors import CorruptArtifact, needs_extra
from pipeline.files import scratch_folder
from pipeline.registry.card import MODEL, Card
from pipeline.store import signatures
from pipeline.store.objects import Store

PURPOSE = "to sign models or to check their signatures"
SIGNATURES = f"registry/{MODEL}/signatures"


def sign_version(store: Store, card: Card) -> None:
    """Sign the version's files, if there is a key to sign with; BadInput where the package is missing."""
    key = signatures.keys().signing_path
    if key is None:
        return
    with needs_extra("sign", PURPOSE):
        from model_signing import signing
    with scratch_folder("sign") as scratch:
        folder, name = Path(scratch, str(card.version)), f"{card.version}.sig"
        store.download(card.path, card.files, folder)
        signing.Config().use_elliptic_key_signer(private_key=key).sign(folder, Path(scratch, name))
        store.upload(scratch, SIGNATURES, [name])


def refuse_untrusted(store: Store, version: int, folder: Path) -> None:
    """Raise CorruptArtifact if keys are trusted and none of them has signed the version's files in the local folder."""
    trusted = signatures.keys().trusted_paths
    if not trusted:
        return
    with needs_extra("sign", PURPOSE):
        from model_signing import verifying
    path = f"{SIGNATURES}/{version}.sig"
    with scratch_folder("verify") as scratch:
        signature, data = Path(scratch, "signature"), store.read_bytes(path)
        signature.write_bytes(data or b"")
        faults = ["it is gone"] if data is None else []
        for key in trusted if data is not None else ():
            try:
                verifying.Config().use_elliptic_key_verifier(public_key=key).verify(folder, signature)
            except Exception as error:  # the package raises many kinds, also for a file that is no signature
                faults.append(str(error).partition("\n")[0][:200])
            else:
                return
    raise CorruptArtifact(
        f"version {version} is not trusted, because {store.display_path(path)} is no signature of its files by a key "
        f"of {signatures.TRUSTED_KEYS} ({'; '.join(faults)}): restore both; {signatures.CURE}"
    )
