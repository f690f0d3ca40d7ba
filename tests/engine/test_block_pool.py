"""Blocks: handed out once, found again by content, forgotten in order of use."""

import pytest

from quintet.backends.base import BLOCK_SIZE
from quintet.engine.block_pool import BlockHash, BlockPool

TOKENS = tuple(range(BLOCK_SIZE))
OTHERS = tuple(range(1, BLOCK_SIZE + 1))


def published(pool: BlockPool, tokens: tuple[int, ...]) -> tuple[int, BlockHash]:
    """A block that holds `tokens` at the start of a sequence, owned once."""
    (block,) = pool.allocate(1)
    name = pool.name(pool.root(""), tokens)
    pool.publish(block, name, tokens)
    return block, name


def test_block_pool_hands_out_every_block_once() -> None:
    """All blocks can be in use, each by one owner."""
    pool = BlockPool(8)
    blocks = pool.allocate(3) + pool.allocate(5)
    assert sorted(blocks) == list(range(8))
    assert pool.num_available == 0
    pool.audit([blocks])


def test_block_pool_refuses_more_than_it_has() -> None:
    """Asking for more blocks than there are changes nothing."""
    pool = BlockPool(4)
    blocks = pool.allocate(3)
    with pytest.raises(ValueError, match="expected 2 available blocks, found 1"):
        pool.allocate(2)
    pool.audit([blocks])


def test_block_pool_refuses_to_free_twice() -> None:
    """A block without an owner cannot be released."""
    pool = BlockPool(4)
    blocks = pool.allocate(1)
    pool.release(blocks)
    with pytest.raises(ValueError, match="has no owner"):
        pool.release(blocks)


def test_block_pool_finds_a_freed_prefix_until_its_block_is_reused() -> None:
    """A freed block keeps its content as long as other blocks can be had."""
    pool = BlockPool(2)
    block, name = published(pool, TOKENS)
    pool.release([block])
    assert pool.num_cached == 1
    assert pool.find(name, TOKENS) == block
    pool.allocate(1)
    assert pool.find(name, TOKENS) == block
    pool.allocate(1)
    assert pool.find(name, TOKENS) is None
    assert pool.num_cached == 0


def test_block_pool_shares_a_prefix_among_owners() -> None:
    """A shared block stays in use until its last owner is gone."""
    pool = BlockPool(2)
    block, _ = published(pool, TOKENS)
    pool.share([block])
    pool.audit([[block], [block]])
    pool.release([block])
    assert pool.is_owned(block)
    pool.release([block])
    assert not pool.is_owned(block)
    pool.share([block])
    pool.audit([[block]])


def test_block_pool_reuses_the_least_recently_used_prefix_first() -> None:
    """Prefixes go in the order in which they were last freed."""
    pool = BlockPool(2)
    first, first_name = published(pool, TOKENS)
    second, second_name = published(pool, OTHERS)
    pool.release([first])
    pool.release([second])
    pool.share([first])
    pool.release([first])
    assert pool.allocate(1) == [second]
    assert pool.find(second_name, OTHERS) is None
    assert pool.find(first_name, TOKENS) == first


def test_block_pool_reuses_the_end_of_a_sequence_before_its_start() -> None:
    """A prefix outlives its continuation."""
    pool = BlockPool(2)
    first, first_name = published(pool, TOKENS)
    (second,) = pool.allocate(1)
    second_name = pool.name(first_name, OTHERS)
    pool.publish(second, second_name, OTHERS)
    pool.release([first, second])
    assert pool.allocate(1) == [second]
    assert pool.find(first_name, TOKENS) == first


def test_block_pool_names_depend_on_what_comes_before() -> None:
    """The same tokens after another prefix, salt or in another pool have another name."""
    pool = BlockPool(2)
    root = pool.root("")
    name = pool.name(root, TOKENS)
    names = {
        name,
        pool.name(root, OTHERS),
        pool.name(name, TOKENS),
        pool.name(pool.root("key 7"), TOKENS),
        BlockPool(2).name(root, TOKENS),
    }
    assert len(names) == 5
    assert pool.name(root, list(TOKENS)) == name


def test_block_pool_compares_tokens_on_a_hit() -> None:
    """A collision of names is not a hit."""
    pool = BlockPool(2)
    _, name = published(pool, TOKENS)
    assert pool.find(name, OTHERS) is None


def test_block_pool_keeps_the_first_of_two_equal_blocks() -> None:
    """A duplicate stays unnamed and is reused first."""
    pool = BlockPool(3)
    first, name = published(pool, TOKENS)
    second, _ = published(pool, TOKENS)
    assert pool.find(name, TOKENS) == first
    pool.release([second])
    assert pool.num_cached == 0
    assert pool.allocate(1) == [second]


def test_block_pool_does_not_find_what_was_withdrawn() -> None:
    """A withdrawn block, owned or not, is never found again and is reused first."""
    pool = BlockPool(4)
    first, name = published(pool, TOKENS)
    second, other_name = published(pool, OTHERS)
    pool.release([second])
    pool.withdraw([first, second])
    assert pool.find(name, TOKENS) is None
    assert pool.find(other_name, OTHERS) is None
    assert pool.num_cached == 0
    pool.audit([[first]])
    assert pool.allocate(1) == [second]


def test_block_pool_without_prefix_cache_finds_nothing() -> None:
    """Switched off, nothing is published."""
    pool = BlockPool(2, enable_prefix_cache=False)
    block, name = published(pool, TOKENS)
    pool.release([block])
    assert pool.find(name, TOKENS) is None


@pytest.mark.parametrize("tables", [[], [[0], [0]], [[0, 1]]])
def test_block_pool_audit_finds_wrong_tables(tables: list[list[int]]) -> None:
    """The audit notices a leak, a double owner and a stolen block."""
    pool = BlockPool(4)
    assert pool.allocate(1) == [0]
    with pytest.raises(AssertionError, match=r"block [01]"):
        pool.audit(tables)
