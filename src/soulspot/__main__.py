"""The installed command and `python -m soulspot`."""


def main() -> None:
    from soulspot.cli import run

    run()


if __name__ == "__main__":
    main()
