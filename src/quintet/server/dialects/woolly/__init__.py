"""Woolly's HTTP interface and its WebSocket protocol.

Source: Woolly, "API Reference": HTTP API, WebSocket API, Error Handling.
"""
