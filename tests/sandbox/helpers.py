"""A helper that does what its task says, good or bad; run as a module."""

from __future__ import annotations

import os
import socket
import time
from typing import Any

from quintet.errors import ContextLengthError
from quintet.sandbox.child import Work, serve


def prepare(setup: Any) -> Work:
    def work(task: Any) -> Any:
        match task:
            case ["echo", value]:
                return [setup, value]
            case ["print", value]:
                print(value)
                return "printed"
            case ["sleep", seconds]:
                time.sleep(seconds)
                return "slept"
            case ["spin"]:
                while True:
                    pass
            case ["grow"]:
                grown = [bytearray(2**20)]
                while True:
                    grown.append(bytearray(2**24))
            case ["recurse"]:
                return work(task)
            case ["crash"]:
                os.kill(os.getpid(), 11)
            case ["refuse"]:
                raise ContextLengthError(7, 5)
            case ["fail"]:
                raise ZeroDivisionError("secret")
            case ["environment"]:
                return dict(os.environ)
            case ["open", path]:
                with open(path) as file:
                    return file.read()
            case ["connect", port]:
                socket.create_connection(("127.0.0.1", port))
        return None

    return work


if __name__ == "__main__":
    serve(prepare)
