"""`python -m minillm`, the same as the command `minillm`."""

from minillm.cli.app import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
