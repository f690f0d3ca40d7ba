"""Anthropic's Messages interface.

Source: Anthropic API reference, "Messages", "Count tokens" and "Streaming messages".
"""
