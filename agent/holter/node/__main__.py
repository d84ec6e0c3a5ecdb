"""`python -m holter.node`: the node agent as a service, with the settings of the environment."""

import sys

from holter.commands.agent import main

if __name__ == "__main__":
    sys.exit(main())
