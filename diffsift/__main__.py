"""``python -m diffsift``: the command line without the installed command."""

from diffsift.cli.app import main

if __name__ == "__main__":
    main()
