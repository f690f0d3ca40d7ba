"""`quintet list`."""

from __future__ import annotations

from quintet.cli.options import JsonOption


def list_models(as_json: JsonOption = False) -> None:
    """List the models there are."""
    from quintet.cli.show import as_fields
    from quintet.cli.tables import age, print_table, size
    from quintet.hub.store import Store

    manifests = Store().list()
    if as_json:
        import json

        print(json.dumps([as_fields(manifest) for manifest in manifests], indent=2))
        return
    rows = [
        (
            manifest.name,
            manifest.digest[:12],
            size(manifest.size_bytes),
            age(manifest.modified_at),
            manifest.source,
        )
        for manifest in manifests
    ]
    print_table(("name", "id", "size", "modified", "from"), rows)
