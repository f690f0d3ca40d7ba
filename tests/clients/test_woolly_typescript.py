"""The TypeScript client that Woolly's reference prints, under Node."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import httpx
import pytest

from quintet import AsyncLLM
from quintet.hub.manifest import Manifest
from quintet.hub.store import Store
from quintet.server.models import LoadPolicy, Models
from server.harness import serving_in_thread


def test_the_class_works_as_it_is_printed(shared_data: Path, folder: Path, tmp_path: Path):
    """Whole and streamed answers; only the types are taken off."""
    reference = shared_data.parent / "specs" / "003_a20964faab9becd3.txt"
    if not reference.exists():
        pytest.skip("the reference is not here")
    blocks = re.findall(r"```typescript\n(.*?)```", reference.read_text(), re.S)
    source = next(block for block in blocks if "class WoollyClient" in block)

    async def load(manifest: Manifest) -> AsyncLLM:
        return await AsyncLLM(manifest.name, num_threads=1).__aenter__()

    models = Models(Store(tmp_path / "store"), load, LoadPolicy())
    with serving_in_thread(models, dialect="woolly") as url:
        assert httpx.post(f"{url}/api/models/load", json={"name": "demo"}).status_code == 200
        (folder / "woolly.ts").write_text(
            source.split("// Usage")[0]
            + f"""
const client = new WoollyClient({json.dumps(url)});
const text = await client.generate('Once upon a time', {{ maxTokens: 6 }});
const tokens: string[] = [];
for await (const token of client.generateStream('Tell me a story', {{ maxTokens: 6 }})) {{
  tokens.push(token);
}}
console.log(JSON.stringify({{ text, tokens }}));
"""
        )
        for command in (["transpile.mjs", "woolly.ts", "woolly.mjs"], ["woolly.mjs"]):
            done = subprocess.run(
                ["node", *command],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["text"]
    assert 1 <= len(told["tokens"]) <= 6
