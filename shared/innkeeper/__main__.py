"""Run the command with ``python -m innkeeper``; the supervisors start their children so."""

from innkeeper.cli import main

if __name__ == "__main__":
    main(prog_name="innkeeper")
