"""A user's own gate in a plan: the content of its file, hashed and not imported."""

import hashlib
from pathlib import Path

from attention_ablation.base.errors import UserError
from attention_ablation.gates.record import Attention
from attention_ablation.gates.source import declared


def seal(attention: Attention, root: Path, where: object) -> Attention:
    """Return a gate with its place and the hash of its file; one of the package as it is.

    Args:
        root: the project's folder, from which the file's path counts.
        where: what names the gate, for messages.

    Raises UserError where there is no such file or class, the class does not take the options, or
    the file is not the one whose hash is given.
    """
    if attention.module_file is None or attention.module_class is None:
        return attention
    path = root / attention.module_file
    source = read_module(attention, path, where)
    found = declared(source, attention.module_class, path)
    found.check(attention.options or {}, attention.place, where)
    place = None if found.place == "block-end" else found.place
    digest = hashlib.sha256(source).hexdigest()
    return attention.model_copy(update={"module_sha256": digest, "place": place})


def read_module(attention: Attention, path: Path, where: object) -> bytes:
    """Return a file's content. Raises UserError where it cannot be read or was changed since."""
    try:
        source = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{where}: expected the gate's class in {path}, which cannot be read: "
            f"{error.strerror}. Its path counts from the project's folder, where workflow/ is."
        ) from None
    expected, digest = attention.module_sha256, hashlib.sha256(source).hexdigest()
    if expected not in (None, digest):
        raise UserError(
            f"{where}: expected {attention.module_file} with the SHA-256 {expected[:10]}..., got "
            f"{digest[:10]}...; it was changed since. Plan the run again, which makes it another "
            "run, or put the file back as it was."
        )
    return source
