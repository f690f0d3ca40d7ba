"""Named conversations that outlive the program.  May import llm and below."""

from quintet.sessions.async_sessions import AsyncSessions
from quintet.sessions.exchange import Reply
from quintet.sessions.sessions import Sessions
from quintet.sessions.store import SessionInfo, SessionStore

__all__ = ["AsyncSessions", "Reply", "SessionInfo", "SessionStore", "Sessions"]
