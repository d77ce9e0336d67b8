"""What is raised for bytes that are not a message."""


class WireError(ValueError):
    """Bytes are not the message that was expected; the text says what is wrong with them."""
