"""Who a request comes from and which rooms it may enter, judged before the upgrade and before Redis is touched."""

from innkeeper_edge.auth.grant import FORBIDDEN, Authenticator, Grant, PatternInvalid, Patterns, refuse
from innkeeper_edge.auth.nobody import Anybody

__all__ = ["FORBIDDEN", "Anybody", "Authenticator", "Grant", "PatternInvalid", "Patterns", "refuse"]
