"""
Short stories from a small grammar.

A story follows one of several plots; hero, place, friend and thing are drawn once and kept, so
every sentence agrees with the ones before it.
"""

# ruff: noqa: E501, SIM905 - long lines and split strings keep the word lists readable
from __future__ import annotations

import random
from dataclasses import dataclass

from .people import NAMES
from .sample import Exchange, Sample, article, ask, capitalise, expand, loosen, pick

HE = "boy prince king knight wizard farmer pirate fisherman baker painter".split()
SHE = "girl princess queen witch teacher nurse gardener dancer sailor".split()
IT = """cat dog dragon robot fox rabbit owl mouse bear turtle lion tiger elephant whale bee frog
horse penguin squirrel hedgehog monkey duck goat wolf deer pony kitten puppy snail butterfly
unicorn dolphin parrot spider crab swan giraffe panda koala ghost monster giant fairy elf dwarf
astronaut star cloud train boat snowman tree toy""".split()
KINDS = HE + SHE + IT
PLACES = [
    "in a small village by the sea", "at the edge of a deep forest", "on a high green hill",
    "in a quiet valley", "in a faraway kingdom", "near a silver lake", "beside a wide river",
    "in a little town under the mountains", "on a sunny island", "in an old stone castle",
    "in a garden full of flowers", "in a busy city",
]  # fmt: skip
THINGS = """key lantern ring book map bell drum kite mirror crown flute coin compass box clock
stone feather blanket hat ball""".split()
ADJECTIVES = """little young brave kind curious clever gentle lonely cheerful shy""".split()
FEARS = ["the dark", "deep water", "thunder", "high places", "loud noises", "being alone"]
SKILLS = ["sing", "dance", "paint", "swim", "climb", "bake bread", "play the flute", "whistle"]
TREATS = ["bread and honey", "warm soup", "apple pie", "sweet berries", "hot cocoa", "a big cake"]
STORY_NAMES = (
    NAMES + """Luna Milo Pip Ruby Finn Bramble Coco Daisy Hazel Rusty Sunny Willow""".split()
)
HIS_NAMES = "Bob Henry Jack Liam Peter Sam Tom Adam Leo Oscar Finn Otto Felix Hugo James".split()
HER_NAMES = "Alice Emma Mia Rose Lucy Clara Anna Ivy Ruby Nora Julia Luna Sofia Zara Ella".split()


@dataclass(frozen=True)
class Cast:
    hero: str
    kind: str
    adjective: str
    place: str
    friend: str
    friend_kind: str
    thing: str

    def slots(self, rng: random.Random) -> dict[str, str]:
        forms = ("he", "him", "his")
        if self.kind in SHE:
            forms = ("she", "her", "her")
        elif self.kind in IT:
            forms = ("it", "it", "its")
        they, them, their = forms
        return {
            "hero": self.hero, "kind": self.kind, "a_kind": article(f"{self.adjective} {self.kind}"),
            "place": self.place, "friend": self.friend, "a_friend": article(self.friend_kind),
            "friend_kind": self.friend_kind, "thing": self.thing, "a_thing": article(self.thing),
            "they": they, "They": capitalise(they), "them": them, "their": their,
            "Their": capitalise(their), "fear": rng.choice(FEARS), "skill": rng.choice(SKILLS),
            "treat": rng.choice(TREATS),
        }  # fmt: skip


OPENINGS = [
    "Once upon a time, {place}, there lived {a_kind} named {hero}.",
    "Once upon a time, there was {a_kind} named {hero} who lived {place}.",
    "Once upon a time, {a_kind} named {hero} lived {place}.",
]
PLOTS = {
    "lost": [
        "{hero} had [one treasure|one thing {they} loved most]: an old {thing}.",
        "One [morning|day], the {thing} was gone.",
        "{hero} looked [under the bed|behind the door], [in the garden|by the well] and along the"
        " path, but {they} could not find it.",
        "[Tired and sad|With a heavy heart], {hero} sat down and [sighed|cried].",
        'Then {a_friend} named {friend} came by and asked, "What is wrong?"',
        '"I have lost my {thing}," said {hero}.',
        '"Let us look together," said {friend}, "for four eyes see more than two."',
        "[Soon|Before sunset] they found the {thing} [under a bush|in the tall grass|near the old"
        " bridge].",
        "{hero} [laughed with joy|was very happy] and shared {treat} with {friend}.",
        "From that day on, they were the best of friends.",
    ],
    "friend": [
        "{hero} had [a warm home|everything {they} needed], but no one to play with.",
        "One [evening|day], {hero} heard a soft voice outside.",
        "It was {a_friend} named {friend}, who had lost the way home.",
        '"Come in and rest," said {hero}.',
        "They ate {treat} and told each other stories until the moon was high.",
        "In the morning, {hero} showed {friend} the way home.",
        '"Will you visit me again?" asked {hero}.',
        '"Every week," said {friend} with a smile.',
        "{hero} was never lonely again.",
    ],
    "fear": [
        "{hero} was [kind and clever|good at many things], but {they} was afraid of {fear}.",
        "One night, a storm came and {friend} the {friend_kind} did not come home.",
        "{hero} knew that someone had to help.",
        "{They} took {their} {thing}, [breathed deeply|counted to three] and went out into the rain.",
        '"{friend}! Where are you?" called {hero}.',
        "At last a small voice answered from behind a rock.",
        "{hero} led {friend} safely home.",
        "That night {hero} learned that being brave means going on even when you are afraid.",
    ],
    "treasure": [
        "One day, {hero} found an old map inside {a_thing}.",
        "The map showed a path to a hidden treasure.",
        "{hero} asked {friend} the {friend_kind} to come along.",
        "Together they crossed a [river|bridge], climbed a hill and walked through a dark cave.",
        "At the end of the cave stood a wooden chest.",
        "Inside there was no gold, but [seeds of every kind of flower|a hundred good books].",
        "They carried the chest home and shared it with everyone.",
        "Soon the whole land was [full of colour|full of stories], and {hero} knew that this was the"
        " best treasure of all.",
    ],
    "learn": [
        "More than anything, {hero} wanted to learn to {skill}.",
        "The first time {they} tried, everyone laughed.",
        "{hero} was sad, but {they} did not give up.",
        "Every morning, {they} practised with {friend}, a patient old {friend_kind}.",
        "Day by day it became a little easier.",
        "When the summer feast came, {hero} was ready to {skill} in front of everyone.",
        "This time nobody laughed, and the whole crowd cheered.",
        '"You see," said {friend}, "great things grow slowly."',
    ],
    "wish": [
        "One night, {hero} found a shining {thing} on the path.",
        'When {they} touched it, a tiny voice said, "You may have one wish."',
        "{hero} thought about gold and about fame.",
        "Then {they} saw {friend}, a poor {friend_kind}, shivering in the cold.",
        '"I wish for a warm home for my neighbour," said {hero}.',
        "At once a small house with a bright fire stood beside the road.",
        "{friend} thanked {hero} and made {treat} for both of them.",
        "{hero} went home without gold, but with a happy heart.",
    ],
}
CLOSINGS = ["", "", "", " The end.", " And they lived happily ever after."]

ASK_ANY = [
    "Tell me a story.", "Tell me a story", "[Tell|Write|Give] me a [short |little |nice |]story[.|]",
    "[Write|Make up|Invent] a [short |little |nice |new |]story[.|]", "Tell a story[.|]",
    "[Can|Could|Will] you tell [me |]a [short |]story?", "[I want|I would like] to hear a story.",
    "[Please tell|Read] me a [bedtime |]story.", "Story time!", "A story, please.",
    "Do you know [a|any] [good |]story?", "[Can|Could] you write [me |]a [short |]story?",
    "Once upon a time", "Once upon a time...", "Entertain me with a story.",
    "Let me hear a [nice |short |]story.", "Tell us a story.", "Tell me a fairy tale.",
]  # fmt: skip
ASK_ABOUT = [
    "[Tell|Write|Give] me a [short |little |nice |]story about {t}[.|]",
    "[Write|Make up|Invent] a [short |little |nice |new |]story about {t}[.|]",
    "Tell a story about {t}[.|]",
    "[Can|Could|Will] you tell [me |]a [short |]story about {t}?",
    "[I want|I would like] to hear a story about {t}.",
    "[Please tell|Read] me a bedtime story about {t}.",
    "A story about {t}, please.",
    "[Can|Could] you write [me |]a [short |]story about {t}?",
    "Do you know a story about {t}?",
    "Tell me a fairy tale about {t}.",
]


def story(
    rng: random.Random, *, kind: str = "", hero: str = "", place: str = "", thing: str = "",
    adjective: str = "",
) -> str:  # fmt: skip
    plots = [plot for plot in PLOTS if not thing or plot != "friend"]
    if kind in ("", "any"):
        kind = rng.choice(KINDS)
    friend_kind = rng.choice([k for k in KINDS if k != kind])
    hero = hero or _name_for(rng, kind)
    cast = Cast(
        hero=hero,
        kind=kind,
        adjective=adjective or rng.choice(ADJECTIVES),
        place=place or rng.choice(PLACES),
        friend=_name_for(rng, friend_kind, other_than=hero),
        friend_kind=friend_kind,
        thing=thing or rng.choice(THINGS),
    )
    sentences = [rng.choice(OPENINGS), *PLOTS[rng.choice(plots)]]
    slots = cast.slots(rng)
    text = " ".join(expand(rng, sentence).format(**slots) for sentence in sentences)
    return text + rng.choice(CLOSINGS)


def exchange(rng: random.Random) -> Exchange:
    roll = rng.random()
    if roll < 0.35:
        return ask(loosen(rng, pick(rng, ASK_ANY)), story(rng))
    if roll < 0.85:
        kind = rng.choice(KINDS)
        hero = adjective = ""
        topic = article(kind)
        style = rng.random()
        if style < 0.2:
            topic = plural(kind)
        elif style < 0.4:
            hero = rng.choice(STORY_NAMES)
            topic += rng.choice([" named ", " called "]) + hero
        elif style < 0.5:
            adjective = rng.choice(ADJECTIVES)
            topic = article(f"{adjective} {kind}")
        return ask(loosen(rng, pick(rng, ASK_ABOUT, t=topic), keep_case=bool(hero)),
                   story(rng, kind=kind, hero=hero, adjective=adjective))  # fmt: skip
    if roll < 0.92:
        thing = rng.choice(THINGS)
        topic = rng.choice([f"a magic {thing}", f"an old {thing}", article(thing)])
        return ask(loosen(rng, pick(rng, ASK_ABOUT, t=topic)), story(rng, thing=thing))
    place = rng.choice(["in a faraway kingdom", "in an old stone castle", "on a sunny island"])
    opening = rng.choice(["Once upon a time, {p}...", "Once upon a time, {p}"]).format(p=place)
    return ask(opening, story(rng, place=place))


def raw(rng: random.Random) -> Sample:
    return Sample(text=story(rng))


def _name_for(rng: random.Random, kind: str, *, other_than: str = "") -> str:
    names = HIS_NAMES if kind in HE else HER_NAMES if kind in SHE else STORY_NAMES
    return rng.choice([name for name in names if name != other_than])


def plural(noun: str) -> str:
    special = {"mouse": "mice", "wolf": "wolves", "deer": "deer", "butterfly": "butterflies",
               "pony": "ponies", "puppy": "puppies", "fairy": "fairies", "elf": "elves",
               "witch": "witches", "fox": "foxes", "princess": "princesses", "fisherman": "fishermen",
               "snowman": "snowmen"}  # fmt: skip
    return special.get(noun, noun + "s")
