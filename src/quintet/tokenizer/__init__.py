"""Text to token ids and back, and chat templates.  May import errors and formats."""

from quintet.tokenizer.chat import CHATML, ChatTemplate
from quintet.tokenizer.detokenizer import Detokenizer
from quintet.tokenizer.tokenizer import Tokenizer

__all__ = ["CHATML", "ChatTemplate", "Detokenizer", "Tokenizer"]
