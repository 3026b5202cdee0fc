"""What goes wrong with authentication."""

from innkeeper.errors import InnkeeperError


class AuthInvalid(InnkeeperError):
    """The configuration of authentication makes no sense; the text says what."""

    exit_code = 2


class TokenInvalid(Exception):
    """A token that proves nothing; the text is for the log and quotes nothing of the token."""
