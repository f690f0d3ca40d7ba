"""OpenAI's Responses interface: over HTTP, as typed events, and over a WebSocket."""
