#!/usr/bin/env python3
"""Serve a model over HTTP: `python tools/start_service.py --help`."""

import sys

from nano_qwen3_serving.service.start import main

if __name__ == "__main__":
    sys.exit(main())
