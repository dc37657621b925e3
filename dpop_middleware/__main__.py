"""`python -m dpop_middleware` is the command `dpop-middleware`."""

import sys

from dpop_middleware.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
