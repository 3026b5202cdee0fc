"""The inspector: a web page to look into rooms and to act on them, served by ``innkeeper inspector``."""
