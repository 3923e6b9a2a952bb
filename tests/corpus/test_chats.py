"""Chats and preferences in a file: what is read, and what is refused before hours."""

import json

import pytest

from minillm.corpus.chats import hold_out, read_lessons


def said(*words, start="user"):
    other = {"user": "assistant", "assistant": "user"}
    turns = []
    for word in words:
        turns.append({"role": start, "content": word})
        start = other[start]
    return turns


def write(tmp_path, *lines):
    path = tmp_path / "chats.jsonl"
    text = "\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines)
    path.write_text(text, encoding="utf-8")
    return path


SYSTEM = {"role": "system", "content": "Be brief."}


def test_chats_are_read_as_they_stand(tmp_path):
    path = write(
        tmp_path,
        {"messages": [SYSTEM, *said("a", "b\u2028", "c", "d")], "source": "me"},
        "",
        {"messages": said("é", "f")},
    )
    one, two = read_lessons(path)
    assert one.texts == (
        (
            ("system", "Be brief."),
            *(("user", "a"), ("assistant", "b\u2028")),
            *(("user", "c"), ("assistant", "d")),
        ),
    )
    assert two.texts == ((("user", "é"), ("assistant", "f")),)
    assert (one.where, two.where) == (f"{path}, line 1", f"{path}, line 3")
    assert (one.first, one.plain) == (0, False)


def test_preferences_are_read_in_each_of_trls_forms(tmp_path):
    prompt, a, b = said("q", "r", "s"), *(said(x, start="assistant") for x in "ab")
    explicit = {"prompt": prompt, "chosen": a, "rejected": b}
    implicit = {"chosen": prompt + a, "rejected": prompt + b}
    plain = {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}
    one, two, three = read_lessons(write(tmp_path, explicit, implicit, plain))
    turns = (("user", "q"), ("assistant", "r"), ("user", "s"))
    assert one.texts == ((*turns, ("assistant", "a")), (*turns, ("assistant", "b")))
    assert one[1:] == two[1:] and one.first == 3
    assert three.texts[0] == (("user", "The sky is"), ("assistant", " blue."))
    assert (three.first, three.plain) == (1, True)


chosen, rejected = said("good", start="assistant"), said("bad", start="assistant")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"messages": said("a")}, "ends with an answer; this one ends with 'user'"),
        ({"messages": []}, "this one ends with nothing"),
        ({"messages": [SYSTEM]}, "this one ends with 'system'"),
        ({"messages": said("a", " \n")}, "message 2, an answer, is empty"),
        ({"messages": said("a", "b", "c")}, "ends with 'user': add it, or drop"),
        (
            {"messages": said("a", start="assistant")},
            "message 1 is of 'assistant', where 'user' is expected",
        ),
        (
            {"messages": [*said("a", "b"), *said("c", start="assistant")]},
            "message 3 is of 'assistant', where 'user' is expected",
        ),
        (
            {"messages": [*said("a"), SYSTEM, *said("b", start="assistant")]},
            "message 2 is of 'system', where 'assistant' is expected",
        ),
        (
            {"messages": [{"role": "tool", "content": "x"}]},
            "message 1 is of 'tool', where 'user'",
        ),
        ({"messages": "hello"}, "messages must be a list of messages; got 'hello'"),
        ({"messages": ["hello"]}, "message 1 of messages must have a role and"),
        ({"messages": [{"role": "user"}]}, "must have a role and a content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
            "both texts; got",
        ),
        ({"text": "hello"}, "a chat has messages, a preference has prompt, chosen"),
        ([1], "a chat has messages"),
        ("{", "is not JSON"),
        (
            {"prompt": said("a"), "chosen": chosen, "rejected": chosen},
            "chosen and rejected are equal",
        ),
        (
            {"prompt": said("a", "b"), "chosen": chosen, "rejected": rejected},
            "message 3 is of 'assistant', where 'user' is expected",
        ),
        (
            {"prompt": said("a"), "chosen": [], "rejected": rejected},
            "a chat ends with an answer; this one ends with 'user'",
        ),
        ({"chosen": chosen, "rejected": rejected}, "message 1 is of 'assistant'"),
        (
            {"chosen": said("a", "b"), "rejected": said("c", "d")},
            "between two answers of the assistant to the same prompt",
        ),
        (
            {"prompt": "a", "chosen": "", "rejected": "b"},
            "prompt, chosen and rejected must have some text",
        ),
        (
            {"prompt": "a", "chosen": "b", "rejected": rejected},
            "prompt must be a list of messages",
        ),
    ],
)
def test_what_would_ruin_a_training_is_named(tmp_path, line, message):
    path = write(tmp_path, {"messages": said("a", "b")}, line)
    with pytest.raises(ValueError) as error:
        read_lessons(path)
    assert message in str(error.value)
    assert f"{path}, line 2" in str(error.value)


def test_files_that_are_none(tmp_path):
    with pytest.raises(ValueError, match="has no chats"):
        read_lessons(write(tmp_path, "", ""))
    both = {"messages": said("a", "b")}, {"chosen": chosen, "rejected": rejected}
    both[1]["prompt"] = said("a")
    with pytest.raises(ValueError, match="line 2: the file has both chats and pref"):
        read_lessons(write(tmp_path, *both))
    path = tmp_path / "latin.jsonl"
    path.write_bytes(b'\n{"messages": "na\xefve"}')
    with pytest.raises(ValueError, match="line 2 is not UTF-8 at byte 16"):
        read_lessons(path)


def test_no_prompt_is_on_both_sides(tmp_path):
    lines = [{"messages": said(f"q{i % 40}", f"a{i}")} for i in range(120)]
    lessons = read_lessons(write(tmp_path, *lines))
    sides = hold_out(lessons, 0.3)
    prompts = [{lesson.texts[0][0] for lesson in side} for side in sides]
    assert not prompts[0] & prompts[1]
    assert len(prompts[0] | prompts[1]) == 40
    assert 5 <= len(prompts[1]) <= 20
    assert sum(map(len, sides)) == 120
    # The order of the lines decides nothing.
    again = hold_out(lessons[::-1], 0.3)
    assert [set(side) for side in again] == [set(side) for side in sides]
    with pytest.raises(ValueError, match="with one prompt cannot be split"):
        hold_out([lesson for lesson in lessons if lesson.texts[0][0][1] == "q1"], 0.3)
    # Of two, one is on each side, whatever the share.
    for share in (1e-6, 1 - 1e-6):
        assert [len(side) for side in hold_out(lessons[:2], share)] == [1, 1]
