"""Clients of a server: Ollama's interface, plain and asynchronous, and HTTP as it is."""

from oprel.client.awaited import AsyncClient
from oprel.client.blocking import Client
from oprel.client.http import HTTPClient

__all__ = ["AsyncClient", "Client", "HTTPClient"]
