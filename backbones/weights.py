"""Digests of weights: what a network is known by, computed once and remembered by the files it was loaded from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from diffsift.common.files import digest, seal_holds, sealed, write_atomically


def digest_of(*modules: nn.Module) -> str:
    """The digest of networks: over names, types, shapes and values of all parameters and buffers.

    Args:
        *modules: on any device; their order counts.

    Returns:
        Thirty-two hexadecimal digits (BLAKE2b), equal exactly when all weights are equal.
    """
    hasher = hashlib.blake2b(digest_size=16)
    for module in modules:
        for name, tensor in module.state_dict().items():
            hasher.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
            hasher.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return hasher.hexdigest()


Digest = Callable[..., str]
"""Computes the digest of some modules, as `digest_of` does."""


class HashedNetwork:
    """A network whose weights are hashed when its digest is first asked for, and never again.

    Args:
        module: the network; its weights must not change once the digest was asked for.
        compute: computes the digest; `digest_of` by default.
    """

    def __init__(self, module: nn.Module, compute: Digest | None = None) -> None:
        self.module = module
        self._compute = compute

    @cached_property
    def digest(self) -> str:
        """The digest of the weights."""
        return (self._compute or digest_of)(self.module)


class DigestCache:
    """Remembers digests of weights, so that a later run does not read large networks again only to hash them.

    Networks are recognised by the files in the folders they were loaded from: resolved path, size and modification
    time of each. The digest itself stays that of the weights: it is the same whether it was remembered or computed.

    Args:
        file: JSON file that holds the digests, made when the first is added; None keeps them in memory only.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._known: dict[str, str] = {}

    def digest_of(self, modules: Sequence[nn.Module], loaded_as: Sequence[str | None] = ()) -> str:
        """The digest of networks as they were loaded, remembered where their files are known.

        Args:
            modules: networks of diffusers or transformers, unchanged since they were loaded.
            loaded_as: what else decided about the weights that were taken from the files, such as the variant.

        Returns:
            What `digest_of` returns for the same modules.
        """
        files = _files_of(modules)
        if files is None:
            return digest_of(*modules)
        types = [str(next(module.parameters()).dtype) for module in modules]
        key = digest([files, types, list(loaded_as), [version(name) for name in _LOADERS]], 32)
        if key not in self._known:
            self._known = {**self._stored(), **self._known}
        if key not in self._known:
            self._add(key, digest_of(*modules))
        return self._known[key]

    def _stored(self) -> dict[str, str]:
        with suppress(OSError, ValueError, TypeError, AttributeError, KeyError):
            document = json.loads(self._file.read_text(encoding="utf-8")) if self._file else {}
            return dict(document["digests"]) if seal_holds(document) else {}
        return {}  # missing, of an older version or damaged: hashed again

    def _add(self, key: str, value: str) -> None:
        self._known[key] = value
        if self._file is None:
            return
        with suppress(OSError):  # hashing again is all that is lost
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._file, json.dumps(sealed({"digests": {**self._stored(), **self._known}}), indent=1))


_LOADERS = ("diffusers", "torch", "transformers")
"""Another version may make other buffers of the same files."""


def _files_of(modules: Sequence[nn.Module]) -> list[tuple[str, int, int]] | None:
    """Path, size and modification time of the files that modules were loaded from; None where a folder is unknown."""
    found = []
    for module in modules:
        folder = Path(str(getattr(getattr(module, "config", None), "_name_or_path", "")))
        if not str(folder).strip(".") or not folder.is_dir():
            return None
        for file in sorted(entry.resolve() for entry in folder.iterdir() if entry.is_file()):
            status = file.stat()
            found.append((str(file), status.st_size, status.st_mtime_ns))
    return found
