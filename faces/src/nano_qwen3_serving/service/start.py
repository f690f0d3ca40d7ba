"""The command that starts the service."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nano_qwen3_serving.exceptions import NanoQwen3ServingError
from nano_qwen3_serving.service.options import read_options

if TYPE_CHECKING:
    from quintet.server.run import Server


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Serve until SIGTERM or SIGINT.

    Returns:
        The exit status: 2 where an option, the model or the address is at fault.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    inherited = None
    if given and given[0].startswith("--listener="):  # from `Workers`
        inherited = int(given.pop(0).partition("=")[2])
    try:
        options, config = read_options(given)
        logging.basicConfig(
            level=options.log_level.upper(),
            format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        )
        from nano_qwen3_serving.service.server import bind, serve, served_name

        def announce(server: Server) -> None:
            print(f"Serving {served_name(options.model_name)} at {server.url}", file=sys.stderr)

        if inherited is not None:
            serve(options, socket.socket(fileno=inherited))
            return 0
        listener = bind(options)
        if options.workers == 1 and not options.reload:
            serve(options, listener, announce)
            return 0
        from nano_qwen3_serving.service.workers import Workers, source_files

        host, port = listener.getsockname()[:2]
        print(f"Serving {served_name(options.model_name)} at http://{host}:{port}", file=sys.stderr)
        watched = source_files(config) if options.reload else ()
        return Workers(given, listener, options.workers, watched).run()
    except (NanoQwen3ServingError, OSError) as error:
        print(f"start_service: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
