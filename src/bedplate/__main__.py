"""``python -m bedplate`` is the command ``bedplate``."""

from bedplate.cli import main

if __name__ == "__main__":
    main()
