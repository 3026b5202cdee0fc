"""``innkeeper dev``: everything on this machine, with a reload that keeps every socket."""
