"""What a chat model's answer means: thought, content, tool calls.

May import errors and tokenizer.
"""
