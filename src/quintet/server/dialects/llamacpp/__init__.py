"""llama-server's own HTTP interface: completion, tokens, infill, vectors, props, slots.

Source: tools/server/README.md of ggml-org/llama.cpp, and tools/server/server.cpp for the routes.
"""
