"""Clients of a server: Ollama's interface, plain and asynchronous, and HTTP as it is."""

from oprel.client.http import HTTPClient
from oprel.client.ollama import AsyncClient, Client

__all__ = ["AsyncClient", "Client", "HTTPClient"]
