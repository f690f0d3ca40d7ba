"""The KV cache's blocks: who owns them, and which prefix each one holds.

A block is *used* (one or more sequences own it), *cached* (nobody owns it, but
it still holds a prefix that may be asked for again) or *free*.  Cached and free
blocks wait in one queue: free ones are reused first, then cached ones, least
recently used first.

A full block is named by a keyed hash of its tokens and its predecessor's name,
so equal names mean equal prefixes.  The key is random per pool, since a client
who can predict names could craft a collision (CVE-2025-25183); a hit compares
the token ids all the same.

Source: Kwon et al. 2023, arXiv:2309.06180, section 4; vLLM's v1 `block_pool.py`.
"""

from __future__ import annotations

import hashlib
import secrets
from array import array
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NewType

BlockHash = NewType("BlockHash", bytes)


@dataclass(frozen=True, slots=True)
class CachedPrefix:
    """What a named block holds: the end of a prefix."""

    name: BlockHash
    token_ids: tuple[int, ...]


class BlockPool:
    """
    Hands out block ids 0 .. num_blocks - 1.  Used by the engine loop only.

    Args:
        num_blocks: blocks of the executor's KV cache.
        enable_prefix_cache: False never finds a prefix.
        key: of the hash, 16 to 64 bytes; random when None.
    """

    def __init__(
        self, num_blocks: int, *, enable_prefix_cache: bool = True, key: bytes | None = None
    ) -> None:
        self.num_blocks = num_blocks
        self._enabled = enable_prefix_cache
        self._key = secrets.token_bytes(32) if key is None else key
        self._num_owners = [0] * num_blocks
        # An OrderedDict rather than a deque: a prefix hit takes blocks out of the middle.
        self._unowned: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))
        self._prefixes: dict[int, CachedPrefix] = {}
        self._blocks: dict[BlockHash, int] = {}
        self._num_cached = 0

    @property
    def num_available(self) -> int:
        """Blocks that `allocate` can hand out: free and cached ones."""
        return len(self._unowned)

    @property
    def num_cached(self) -> int:
        """Blocks nobody owns that still hold a prefix."""
        return self._num_cached

    def root(self, salt: str) -> BlockHash:
        """The name that stands before a sequence's first block; differs from salt to salt."""
        return self._digest(b"root", salt.encode())

    def name(self, predecessor: BlockHash, token_ids: Sequence[int]) -> BlockHash:
        """The name of a full block with these tokens after `predecessor`."""
        return self._digest(b"block", predecessor + array("i", token_ids).tobytes())

    def find(self, name: BlockHash, token_ids: Sequence[int]) -> int | None:
        """The block that holds this prefix, if any still does."""
        block = self._blocks.get(name)
        if block is None or self._prefixes[block].token_ids != tuple(token_ids):
            return None
        return block

    def is_owned(self, block: int) -> bool:
        """Whether a sequence owns the block, so that sharing it costs nothing."""
        return self._num_owners[block] > 0

    def share(self, blocks: Iterable[int]) -> None:
        """Add an owner to each of these blocks, which `find` has just returned."""
        for block in blocks:
            if self._num_owners[block] == 0:
                del self._unowned[block]
                self._num_cached -= 1
            self._num_owners[block] += 1

    def allocate(self, count: int) -> list[int]:
        """Blocks for one new owner; the prefixes they held are forgotten.

        Raises:
            ValueError: fewer than `count` are available (the caller has not looked).
        """
        if count > len(self._unowned):
            raise ValueError(f"expected {count} available blocks, found {len(self._unowned)}")
        blocks = []
        for _ in range(count):
            block = next(iter(self._unowned))
            self._forget(block)
            del self._unowned[block]
            self._num_owners[block] = 1
            blocks.append(block)
        return blocks

    def release(self, blocks: Sequence[int]) -> None:
        """Take one owner from each block of a sequence, given in the order of its tokens."""
        # From the back: a prefix is of use without its continuation, not the other way round,
        # so the end of a sequence is to be reused before its start.
        for block in reversed(blocks):
            if self._num_owners[block] < 1:
                raise ValueError(f"block {block} has no owner to release it")
            self._num_owners[block] -= 1
            if self._num_owners[block] == 0:
                is_cached = block in self._prefixes
                self._unowned[block] = None
                self._unowned.move_to_end(block, last=is_cached)
                self._num_cached += is_cached

    def publish(self, block: int, name: BlockHash, token_ids: Sequence[int]) -> None:
        """Let others find a full block whose keys and values have been computed."""
        # Where the prefix is known already the block stays unnamed.  Swapping it for the
        # known one would save memory, but block tables only ever grow at the end.
        if self._enabled and name not in self._blocks and block not in self._prefixes:
            self._prefixes[block] = CachedPrefix(name, tuple(token_ids))
            self._blocks[name] = block

    def withdraw(self, blocks: Iterable[int]) -> None:
        """Keep blocks from being found again; their owners keep them."""
        for block in blocks:
            self._forget(block)

    def clear(self) -> None:
        """Forget every prefix."""
        self.withdraw(list(self._prefixes))

    def audit(self, tables: Iterable[Sequence[int]]) -> None:
        """Check the accounts against the block tables of all sequences.

        Raises:
            AssertionError: says which account is wrong.
        """
        owners = Counter(block for table in tables for block in table)
        for block in range(self.num_blocks):
            counted = self._num_owners[block]
            if counted != owners[block]:
                raise AssertionError(f"block {block}: {counted} owners, {owners[block]} tables")
            if (counted == 0) != (block in self._unowned):
                raise AssertionError(f"block {block}: {counted} owners and misplaced")
        named = {prefix.name: block for block, prefix in self._prefixes.items()}
        if named != self._blocks:
            raise AssertionError("names and blocks disagree")
        num_cached = sum(block in self._unowned for block in self._prefixes)
        if num_cached != self._num_cached:
            raise AssertionError(f"{num_cached} cached blocks, {self._num_cached} counted")
        num_used = sum(count > 0 for count in self._num_owners)
        if num_used + len(self._unowned) != self.num_blocks:
            raise AssertionError(
                f"{num_used} used and {len(self._unowned)} unowned of {self.num_blocks} blocks"
            )

    def _forget(self, block: int) -> None:
        prefix = self._prefixes.pop(block, None)
        if prefix is not None:
            del self._blocks[prefix.name]
            if block in self._unowned:
                self._unowned.move_to_end(block, last=False)
                self._num_cached -= 1

    def _digest(self, purpose: bytes, data: bytes) -> BlockHash:
        digest = hashlib.blake2b(data, key=self._key, person=purpose, digest_size=16)
        return BlockHash(digest.digest())
