"""`python -m irjax`: the same as the command `irjax`."""

from irjax.cli import main

if __name__ == "__main__":
    main()
