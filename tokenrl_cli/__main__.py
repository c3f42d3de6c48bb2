"""Runs the command as `python -m tokenrl_cli`."""

from tokenrl_cli.cli import main

if __name__ == "__main__":
    main()
