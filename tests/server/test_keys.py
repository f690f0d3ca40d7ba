"""Key files."""

from __future__ import annotations

from pathlib import Path

import pytest

from quintet.errors import RequestError
from quintet.server.keys import USER_SCOPES, ApiKey, find_key, read_key_file


def test_a_key_file(tmp_path: Path):
    """A key a line, with a name and scopes if its owner wants: without them it does not change the
    store.  Comments and blanks are nothing."""
    path = tmp_path / "keys"
    path.write_text("# ours\n\nalpha\n beta\tanna\ngamma probe metrics,inference\r\n")
    path.chmod(0o600)
    assert read_key_file(path) == (
        ApiKey.of("alpha", "", USER_SCOPES),
        ApiKey.of("beta", "anna", USER_SCOPES),
        ApiKey.of("gamma", "probe", frozenset({"metrics", "inference"})),
    )


@pytest.mark.parametrize(
    "text",
    ["", "# none\n", "s3cret a b c", "s3cret na/me", "s3cret anna everything",
     "s3cret anna metrics,", "s3cret anna\nother anna", "s3cret " + "x" * 65],
)  # fmt: skip
def test_a_bad_key_file_is_refused(tmp_path: Path, text: str):
    """The line is named, and no key is."""
    path = tmp_path / "keys"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(RequestError) as caught:
        read_key_file(path)
    assert "s3cret" not in str(caught.value)


def test_a_key_file_that_others_may_read_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Secrets mounted into containers are often so, so it is no error."""
    path = tmp_path / "keys"
    path.write_text("alpha\n")
    path.chmod(0o644)
    assert len(read_key_file(path)) == 1
    assert "chmod 600" in caplog.text


def test_keys_are_found_whole():
    """Neither a part nor an extension of a key, nor nothing, is the key."""
    keys = [ApiKey.of("alpha", "a"), ApiKey.of("beta", "b")]
    found = [find_key(given, keys) for given in (b"beta", b"alpha", b"alph", b"alpha ", b"")]
    assert [key and key.name for key in found] == ["b", "a", None, None, None]
