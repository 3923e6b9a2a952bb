"""How each word of a text becomes tokens."""

from minillm.bpe import show_merges


def test_show_merges_ends_at_the_tokens(trained):
    for ours in trained.values():
        shown = show_merges(ours, "The beautiful cat<e> 12345", "all")
        assert "".join(word.text for word in shown) == "The beautiful cat<e> 12345"
        for word in shown:
            assert [ours.vocab[id_] for id_ in word.ids] == word.steps[-1]
            # Each step is one merge.
            assert len(word.steps) == len(word.steps[0]) - len(word.steps[-1]) + 1
            assert all(b"".join(step).decode() == word.text for step in word.steps)
