"""GGUF and safetensors files and their number formats.  Knows no model; may import errors."""
