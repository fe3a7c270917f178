"""`python -m ergon`: the same as the command `ergon`."""

from ergon.cli import main

if __name__ == "__main__":
    main()
