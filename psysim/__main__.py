"""Run the command line with ``python -m psysim``."""

from psysim.cli.main import main

if __name__ == "__main__":
    main()
