r"""What a crawl brings back besides prose, made by rules.

A real crawl cannot be shipped, and nobody knows the truth about its pages. So the dirt
of [`minillm.corpus.crawl`][] is made, and here are the rules. Each function takes a
random number generator and returns one text; paragraphs stand apart by a blank line,
lines of a table, a list or a program by a line end.

>>> print(table(Random(1)).splitlines()[0])
Northwick | Wednesday | 15 | 63 | 97 | 57
>>> print(code(Random(2)).splitlines()[0])
def total_b(items, low=1, high=56):
>>> print(repeats(Random(4)).splitlines()[1])
Posted on the noticeboard, no reply yet.

>>> for write in (bulletin, blog, spam, foreign, links, licence):
...     print(" ".join(write(Random(5)).split()[:7]))
At Westerfield the wind was northerly and
We read it on the train from
You will not find top rated tickets
Le roi ordonna qu'on lui apportât le
genuine tickets Odense 814 free handbags Harbour
Copyright (c) 2009 The Greyhaven tickets authors

Only `bulletin` is prose worth keeping: the second *domain* of the crawl, poor in words
but written in sentences. Everything else is there to be thrown away.
"""

from collections.abc import Sequence
from random import Random

__all__ = [
    "blog",
    "bulletin",
    "code",
    "foreign",
    "licence",
    "links",
    "repeats",
    "spam",
    "table",
]

PLACES = (
    "Harbour",
    "Northwick",
    "Saltmarsh",
    "Elsinore",
    "Greyhaven",
    "Odense",
    "Thornby",
    "Westerfield",
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
GOODS = ("shoes", "watches", "pills", "phones", "loans", "tickets", "handbags")
PRAISE = ("cheap", "best", "genuine", "discount", "top rated", "free", "original")

SPAM = (
    "Buy {praise} {goods} online today and save up to {n} percent on all {goods}.",
    "Our {praise} {goods} store in {place} has the {praise} {goods} for you.",
    "Looking for {praise} {goods} near {place}? We ship {goods} to {place} for free.",
    "Click here for {praise} {goods}, the {praise} {goods} that everybody wants.",
    "Every customer in {place} who bought our {goods} came back for more {goods}.",
    "You will not find {praise} {goods} at a lower price, and we accept all cards.",
)
BULLETIN = (
    "At {place} the wind was {wind} and the sea {sea} on {day} morning.",
    "The {ship} left {place} at {n} minutes past {hour} with {n} passengers on board.",
    "Rain is expected over {place} before {day}, with {wind} winds towards evening.",
    "Fishing boats that lie at {place} should stay in port until {day}.",
    "The {ship} is {n} minutes late because of a {sea} sea off {place}.",
    "The light at {place} will be out for repairs from {day} to {day2}.",
    "On {day} the temperature at {place} rose to {n} degrees, and the sea was {sea}.",
    "No ships are due at {place} on {day}, and the ferry to {place2} does not run.",
)
BLOG = (
    "I found my grandmother's copy of this book in {place} last {day}.",
    "My daughter asked for the same page again on {day}, and I read it {n} times.",
    "The cover has come off, but all {n} pictures are still there.",
    "I had forgotten how this part goes, so here it is for you.",
    "If you have another edition, please tell me how yours begins.",
    "We read it on the train from {place} to {place2}, all the way.",
)
LANGUAGES = {
    "da": (
        "Solen skinnede over byen, og børnene løb ned til havnen.",
        "Der var engang en gammel kone, som boede alene ved skoven.",
        "Han så ud over vandet og ønskede sig langt bort.",
        "Om vinteren blev sneen liggende på tagene i mange uger.",
        "Ingen vidste, hvor storken fløj hen, når det blev koldt.",
        "Den lille pige gik gennem gaden med bare fødder.",
    ),
    "de": (
        "Die Kinder liefen über die Brücke und riefen nach dem Hund.",
        "Im Frühling blühten die Bäume vor dem alten Haus.",
        "Er wusste nicht, ob er bleiben oder weiterziehen sollte.",
        "Am Abend saßen alle um den Ofen und erzählten Geschichten.",
        "Das Mädchen hörte die Glocken und ging langsam nach Hause.",
        "Niemand glaubte dem Müller, als er vom Schatz erzählte.",
    ),
    "fr": (
        "Le vieux pêcheur rentrait chaque soir avec une barque à moitié vide.",
        "Les enfants jouaient près de la rivière où l'eau était claire.",
        "Elle répondit qu'elle n'avait jamais vu une fleur aussi belle.",
        "À l'aube, la neige couvrait déjà toutes les maisons du village.",
        "Personne ne savait d'où venait ce garçon ni où il allait.",
        "Le roi ordonna qu'on lui apportât le rossignol aussitôt.",
    ),
}
LICENCE = """Copyright (c) {year} {holder}

Permission is hereby granted, free of charge, to any person obtaining a copy of this \
software and associated documentation files (the "Software"), to deal in the Software \
without restriction, including without limitation the rights to use, copy, modify, \
merge, publish, distribute, sublicense, and/or sell copies of the Software, and to \
permit persons to whom the Software is furnished to do so, subject to the following \
conditions:

The above copyright notice and this permission notice shall be included in all copies \
or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, \
INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A \
PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT \
HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF \
CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE \
OR THE USE OR OTHER DEALINGS IN THE SOFTWARE."""


def _fill(random: Random, pattern: str) -> str:
    places, days = random.sample(PLACES, 2), random.sample(DAYS, 2)
    return pattern.format(
        place=places[0],
        place2=places[1],
        day=days[0],
        day2=days[1],
        goods=random.choice(GOODS),
        praise=random.choice(PRAISE),
        n=random.randrange(2, 60),
        hour=random.choice(("six", "seven", "nine", "noon", "four")),
        wind=random.choice(("light", "fresh", "strong", "northerly", "changing")),
        sea=random.choice(("calm", "slight", "rough", "heavy")),
        ship=random.choice(("Marie", "Dannebrog", "Swift", "Aurora", "Kirsten")),
    )


def _prose(random: Random, patterns: Sequence[str], paragraphs: int) -> str:
    return "\n\n".join(
        " ".join(
            _fill(random, random.choice(patterns))
            for _ in range(random.randrange(4, 8))
        )
        for _ in range(paragraphs)
    )


def bulletin(random: Random) -> str:
    """Write a harbour bulletin: eight kinds of sentences with names and numbers."""
    return _prose(random, BULLETIN, random.randrange(4, 8))


def blog(random: Random) -> str:
    """Write a paragraph of a reader's own, to stand around a quotation."""
    return _prose(random, BLOG, 1)


def spam(random: Random) -> str:
    """Write advertising: whole sentences that say nothing, over and over."""
    return _prose(random, SPAM, random.randrange(5, 12))


def foreign(random: Random) -> str:
    """Write in Danish, German or French: six sentences each, in random order."""
    sentences = LANGUAGES[random.choice(sorted(LANGUAGES))]
    return "\n\n".join(
        " ".join(random.choice(sentences) for _ in range(5))
        for _ in range(random.randrange(2, 6))
    )


def table(random: Random) -> str:
    """Write rows of numbers."""
    return "\n".join(
        " | ".join([
            random.choice(PLACES),
            random.choice(DAYS),
            *(str(random.randrange(100)) for _ in range(4)),
        ])
        for _ in range(random.randrange(40, 90))
    )


def links(random: Random) -> str:
    """Write a list of links, by their names."""
    return "\n".join(
        f"{random.choice(PRAISE)} {random.choice(GOODS)} {random.choice(PLACES)} "
        f"{random.randrange(1000)}"
        for _ in range(random.randrange(40, 90))
    )


def code(random: Random) -> str:
    """Write functions of Python."""
    return "\n\n".join(
        f"def {random.choice(('total', 'scale', 'clip'))}_{random.choice('abcdefgh')}"
        f"(items, low={random.randrange(9)}, high={random.randrange(10, 99)}):\n"
        f"    found = [x * {random.randrange(9)} for x in items if low < x < high]\n"
        f"    return sum(found) / max(len(found), {random.randrange(1, 9)})"
        for _ in range(random.randrange(10, 24))
    )


def licence(random: Random) -> str:
    """Write the MIT licence with another holder: pages that differ in a few words."""
    holder = f"The {random.choice(PLACES)} {random.choice(GOODS)} authors"
    return LICENCE.format(year=random.randrange(1998, 2026), holder=holder)


def repeats(random: Random) -> str:
    """Write one of two lines again and again, like an empty guest book."""
    lines = (
        f"{random.choice(DAYS)}, no entries.",
        "Posted on the noticeboard, no reply yet.",
    )
    return "\n".join(random.choice(lines) for _ in range(random.randrange(40, 120)))
