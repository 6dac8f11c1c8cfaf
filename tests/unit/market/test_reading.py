"""Files become a tree of text: as written, with lines, within limits, and each entry once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.market import documents
from services.market.documents import MarketFile
from services.market.errors import MarketError, MarketRefused, Place
from services.market.reading import Tree, open_files, read
from services.market.tree import Entries, Node, Text, flow


def tree_of(*texts: str) -> Tree:
    return read([MarketFile(f"{number}.yaml", text) for number, text in enumerate(texts, start=1)])


def node_of(text: str, *path: str) -> Node:
    tree = tree_of(text)
    assert tree.errors == ()
    node: Node | None = tree.root
    for key in path:
        assert isinstance(node, Entries)
        node = node.values[key].node
    assert node is not None
    return node


def only_error(tree: Tree) -> MarketError:
    assert len(tree.errors) == 1, tree.errors
    return tree.errors[0]


@pytest.mark.parametrize(
    "text",
    [
        "NO",
        "ON",
        "yes",
        "~",
        "null",
        "17:30",
        "01234",
        "1_000",
        "0x1F",
        "1e3",
        ".inf",
        "2026-11-22",
        "1.10",
        "=",
        "-5",
    ],
)
@pytest.mark.parametrize("style", ["{}", "'{}'", '"{}"'])
def test_every_scalar_stays_as_written(text: str, style: str) -> None:
    node = node_of(f"market: {{currency: {style.format(text)}}}", "market", "currency")
    assert node == Text(text, Place("1.yaml", 1))


def test_keys_stay_as_written_too() -> None:
    assert isinstance(node_of("sources: {no: {}, 007: {}}", "sources", "no"), Entries)
    assert isinstance(node_of("sources: {no: {}, 007: {}}", "sources", "007"), Entries)


def test_an_empty_file_and_one_of_comments_hold_no_entries() -> None:
    assert node_of("") == Entries({}, Place("1.yaml", 1))
    assert node_of("# nothing yet\n---\n") == Entries({}, Place("1.yaml", 3))


def test_every_node_keeps_its_file_and_line() -> None:
    tree = tree_of("market:\n  currency: USD\n", "sources:\n\n  sunform:\n    lead_types: [solar]\n")
    assert tree.root is not None
    sources = tree.root.values["sources"].node
    assert isinstance(sources, Entries)
    assert sources.values["sunform"].place == Place("2.yaml", 3)


def test_a_key_twice_is_an_error_that_names_both_lines() -> None:
    error = only_error(tree_of("buyers:\n  oak: {}\n  elm: {}\n  oak: {}\n"))
    assert (error.line, error.path) == (4, "buyers.oak")
    assert error.expected == "expected each key once: it is in line 2 too"


def test_a_key_twice_with_one_alias_is_an_error() -> None:
    error = only_error(tree_of("sources: {a: &x {}}\nbuyers: {oak: *x, oak: *x}\n"))
    assert error.path == "buyers.oak"


def test_several_files_are_one_market() -> None:
    tree = tree_of("buyers: {oak: {}}", "buyers: {elm: {}}\nsources: {}", "")
    assert tree.errors == ()
    assert tree.root is not None
    assert flow(tree.root) == "{buyers: {oak: {}, elm: {}}, sources: {}}"


def test_the_same_entry_in_two_files_is_an_error_that_names_both() -> None:
    error = only_error(tree_of("\nbuyers: {oak: {}}", "buyers:\n  oak: {}\n"))
    assert (error.file, error.line, error.path) == ("2.yaml", 2, "buyers.oak")
    assert error.expected == "expected each entry once: it is in 1.yaml, line 2, too"


def test_a_section_that_is_no_mapping_does_not_merge() -> None:
    assert only_error(tree_of("buyers: [a]", "buyers: {oak: {}}")).path == "buyers"


UNREADABLE = {
    "a: [1": "expected YAML",
    "a: b: c": "expected YAML",
    "\ta: 1": "expected YAML",
    "a: \x07": "expected YAML",
    "[a, b]": "expected a mapping",
    "just text": "expected a mapping",
    "a: 1\n---\nb: 2": "expected one document",
    "a: !!python/object:os.system x": "expected no tag",
    "a: !!int 5": "expected no tag",
    "a: *b": "expected an anchor that is complete above",
    "a: &x [*x]": "expected an anchor that is complete above",
    "? [a]\n: 1": "expected a plain word as key",
    "&k a: 1": "expected a plain word as key",
    "a: " + "[" * 30 + "]" * 30: "levels",
}


@pytest.mark.parametrize(("text", "expected"), UNREADABLE.items())
def test_refuses_a_file_that_is_no_market_file(text: str, expected: str) -> None:
    tree = tree_of(text)
    assert tree.root is None
    assert expected in only_error(tree).expected


def test_an_unreadable_file_does_not_hide_that_another_is_unreadable() -> None:
    tree = tree_of("a: [", "b: {", "buyers: {}")
    assert [error.file for error in tree.errors] == ["1.yaml", "2.yaml"]


def test_an_alias_stands_for_what_its_anchor_said() -> None:
    node = node_of("buyers: {oak: &x {timezone: UTC}, elm: *x}", "buyers", "elm", "timezone")
    assert isinstance(node, Text)
    assert node.value == "UTC"


def test_aliases_of_aliases_are_bounded() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 8)]
    tree = tree_of("\n".join(lines))
    # A bare name, because a failing test would print ten million nodes.
    was_read = tree.root is not None
    assert not was_read
    assert "each alias followed" in only_error(tree).expected


def test_the_values_of_all_files_together_are_bounded() -> None:
    files = [MarketFile("1.yaml", "a: {b: c}"), MarketFile("2.yaml", "d: {e: f}")]
    assert read(files, nodes_max=10).root is not None
    assert only_error(read(files, nodes_max=9)).file == "2.yaml"


def test_the_size_of_a_file_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "CHARACTERS_MAX", 20)
    assert tree_of("a: 1").root is not None
    assert "at most 20 characters" in only_error(tree_of("a: 1 # and some more of it")).expected


def test_opens_files_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "market.yaml"
    path.write_bytes("# ünï\r\nmarket: {}\n".encode())
    assert open_files([path]) == (MarketFile(str(path), "# ünï\r\nmarket: {}\n"),)


def test_tells_every_file_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff")
    paths = [tmp_path / "missing.yaml", tmp_path / "latin.yaml", tmp_path]
    with pytest.raises(MarketRefused) as refused:
        open_files(paths)
    assert {error.file for error in refused.value.errors} == {str(path) for path in paths}


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_gives_a_tree_or_an_error(text: str) -> None:
    tree = tree_of(text)
    assert (tree.root is None) <= bool(tree.errors)
