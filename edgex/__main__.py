"""`python -m edgex`: the command line, in the form that launchers of several processes start."""

from edgex.cli import main

if __name__ == "__main__":
    main()
