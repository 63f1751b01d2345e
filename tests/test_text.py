"""Numbers with their nouns."""

from tldet.text import are, counted


def test_one_is_singular() -> None:
    assert counted(1, "image") == "1 image"
    assert counted(0, "image") == "0 images"
    assert counted(12345, "object") == "12,345 objects"
    assert [counted(n, "class", "classes") for n in (1, 2)] == ["1 class", "2 classes"]
    assert [are(n) for n in (0, 1, 2)] == ["are", "is", "are"]
