"""A user's own gate in a plan: the content of its file, hashed and not imported."""

import hashlib
from pathlib import Path

from attention_ablation.base.errors import UserError
from attention_ablation.gates.record import Attention


def seal(attention: Attention, root: Path, where: object) -> Attention:
    """Return a gate with the hash of its file, which can change every result; others as they are.

    Args:
        root: the project's folder, from which the file's path counts.
        where: what names the gate, for messages.

    Raises UserError where there is no such file, or it is not the one whose hash is given.
    """
    if attention.module_file is None:
        return attention
    digest = hashlib.sha256(read_module(root / attention.module_file, where)).hexdigest()
    check_digest(attention, digest, where)
    return attention.model_copy(update={"module_sha256": digest})


def read_module(path: Path, where: object) -> bytes:
    """Return a file's content. Raises UserError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{where}: expected the gate's class in {path}, which cannot be read: "
            f"{error.strerror}. Its path counts from the project's folder, where workflow/ is."
        ) from None


def check_digest(attention: Attention, digest: str, where: object) -> None:
    """Raise UserError where a gate names another content of its file than `digest`."""
    expected = attention.module_sha256
    if expected is not None and expected != digest:
        raise UserError(
            f"{where}: expected {attention.module_file} with the SHA-256 {expected[:10]}..., got "
            f"{digest[:10]}...; it was changed since. Plan the run again, which makes it another "
            "run, or put the file back as it was."
        )
