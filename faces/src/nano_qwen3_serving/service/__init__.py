"""The HTTP service: options, the server, and the processes of several workers."""
