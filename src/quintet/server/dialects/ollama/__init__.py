"""Ollama's HTTP interface.

Sources: docs/api.md and docs/modelfile.md of ollama/ollama; api/types.go for fields and their
types; server/routes.go for statuses and the texts of errors.
"""
