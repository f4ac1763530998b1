"""Signs what a store holds already: after the first key was made, or with a new one."""

from pipeline.errors import BadInput
from pipeline.progress import Track, log_lines
from pipeline.registry.registry import Registry
from pipeline.registry.signing import sign_version
from pipeline.store import signatures
from pipeline.store.objects import Store


def sign_store(store: Store, track: Track = log_lines) -> tuple[int, int]:
    """Sign every document and version with TAGGER_SIGNING_KEY, and return how many of each.

    A file of recorded posts counts as a document. Raises BadInput where there is no key to sign with, and
    CorruptArtifact for a document with a signature that is not right; those before it have been signed.
    """
    if signatures.keys().signing is None:
        raise BadInput(f"there is no key to sign with: set {signatures.SIGNING_KEY} to the file of a private key")
    paths = [name for name in store.tree("") if name.endswith(".json")]
    with track("sign", "files", len(paths)) as advance:
        documents = 0
        for path in paths:
            documents += store.sign(path)
            advance(1)
    from pipeline.store import feedback_files  # imports Arrow

    documents += feedback_files.sign(store)
    registry = Registry(store)
    cards = registry.with_files()
    for card in cards:
        sign_version(store, card)
    return documents, len(cards)
