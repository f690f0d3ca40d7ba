"""Haiku of 5, 7 and 5 syllables, and rhymed quatrains."""

# ruff: noqa: E501, SIM905 - long lines and split strings keep the word lists readable
from __future__ import annotations

import random

from .sample import Exchange, ask, capitalise, loosen, pick

HAIKU: dict[str, list[tuple[str, str, str]]] = {
    "spring": [("Soft rain on green leaves", "the first blossom opens up", "spring is here again"),
               ("Buds on every branch", "a small bird begins to sing", "winter says goodbye")],
    "summer": [("Warm wind in the grass", "children laugh beside the lake", "long days full of light")],
    "autumn": [("Red leaves drifting down", "a cool wind walks through the woods", "the year turns to gold"),
               ("Mist above the fields", "the last apple leaves its branch", "autumn holds its breath")],
    "winter": [("White snow on the roof", "a candle glows in the dark", "the whole town is still")],
    "the sea": [("Waves upon the sand", "they whisper and then are gone", "the sea never sleeps")],
    "the moon": [("Pale moon on the lake", "a silver path to the shore", "the night holds its breath")],
    "stars": [("Small lights in the dark", "they have travelled all these years", "just to meet my eyes")],
    "rain": [("Rain taps on the glass", "the garden drinks and grows green", "I listen and smile")],
    "snow": [("Snow falls in the night", "every sound becomes so soft", "morning wakes in white")],
    "a cat": [("Cat on the warm sill", "one ear follows a small bird", "then she sleeps again")],
    "a dog": [("Wet nose, wagging tail", "he waits beside the front door", "love on four quick paws")],
    "trees": [("Old trees in the wind", "their roots remember the rain", "their leaves hold the sun")],
    "flowers": [("A small flower blooms", "a bee comes to say hello", "the garden is glad")],
    "mountains": [("High above the clouds", "the mountain looks at the sun", "it has time to wait")],
    "a river": [("The old river flows", "it carries leaves to the sea", "and never looks back")],
    "love": [("Two hands in the rain", "one small umbrella above", "the world can be warm")],
    "a computer": [("A soft humming fan", "numbers dancing in the dark", "the answer appears")],
    "code": [("One small missing mark", "the program stops in silence", "I find it and smile")],
    "night": [("The lamps have gone out", "an owl calls across the field", "stars fill up the sky")],
    "morning": [("Sun on the still lake", "a new day opens its eyes", "birds begin to sing")],
    "birds": [("Wings against the sky", "a thin line is heading south", "the field waits for them")],
    "coffee": [("Steam above the cup", "the first sip wakes up the day", "now I can begin")],
    "time": [("The clock on the wall", "it counts what I cannot hold", "a leaf falls, then two")],
    "the wind": [("Wind over the hill", "it carries the scent of rain", "the tall grasses bow")],
    "the sun": [("Sun above the hill", "it paints every roof with gold", "the day starts to hum")],
    "friendship": [("Two cups on the sill", "we talk until stars appear", "the tea has gone cold")],
    "a dragon": [("Smoke above the hill", "an old dragon dreams of gold", "the village sleeps on")],
    "artificial intelligence": [("Numbers learn to speak", "a thousand small guesses made", "one of them is right")],
}  # fmt: skip

QUATRAINS: dict[str, list[list[str]]] = {
    "stars": [["The stars come out when day is done", "They wake up slowly, one by one",
               "They shine above the sleeping land", "Like silver thrown from someone's hand"],
              ["A thousand stars are shining bright", "They are the windows of the night",
               "And every time I look up high", "I find a friend there in the sky"]],
    "the moon": [["The moon looks down on field and town", "She wears the night just like a gown",
                  "She lights the path for me to see", "And walks along the road with me"]],
    "the sea": [["The sea is wide, the sea is deep", "It sings the sailors all to sleep",
                 "It brings us shells, it brings us foam", "And leads the little boats back home"]],
    "love": [["Love is a lamp that lights the way", "It warms the night, it lifts the day",
              "It asks for little, gives its best", "And lets a tired heart find rest"]],
    "rain": [["The rain is tapping on the pane", "It sings the same old song again",
              "It fills the river, feeds the tree", "And makes a puddle just for me"]],
    "spring": [["The snow is gone, the grass is new", "The sky is clear, the sky is blue",
                "The birds come back, they start to sing", "And all the world is full of spring"]],
    "winter": [["The snow lies soft on roof and tree", "The world is white as it can be",
                "The fire is warm, the night is long", "The wind outside hums its own song"]],
    "summer": [["The summer sun is warm and bright", "The days are long and full of light",
                "We run and play, we swim and sing", "And wonder what the night will bring"]],
    "autumn": [["The leaves turn red, the leaves turn gold", "The days grow short, the nights grow cold",
                "The wind comes dancing down the lane", "And paints the world with leaves and rain"]],
    "a cat": [["My cat sits by the window sill", "She watches birds and she sits still",
               "She dreams of fish, she dreams of cream", "And purrs along inside her dream"]],
    "a dog": [["My dog is waiting at the gate", "He does not mind if I am late",
               "He jumps for joy, he wags his tail", "His love for me will never fail"]],
    "trees": [["The trees stand tall in sun and rain", "They lose their leaves and grow again",
               "They give us shade, they give us air", "And home to birds that nest up there"]],
    "flowers": [["A flower opens in the sun", "It smiles at each and every one",
                 "It does not speak, it does not sing", "But tells us all that it is spring"]],
    "friendship": [["A friend is there when skies are grey", "A friend will listen, come what may",
                    "We share the laughter and the tears", "And walk together through the years"]],
    "the sun": [["The sun climbs up above the hill", "The sleepy town is lying still",
                 "It paints the roofs with red and gold", "And warms the hands of young and old"]],
    "a robot": [["I know a robot made of tin", "With little wheels that turn within",
                 "It cannot cry, it cannot sing", "But it can count most everything"]],
    "computers": [["A small machine upon my desk", "It helps me out with every task",
                   "It counts and counts the whole night through", "And tells me in the morning too"]],
    "night": [["The day has closed its golden door", "The sun is on another shore",
               "The owls awake, the children sleep", "And stars have all the watch to keep"]],
    "home": [["A little house, a little light", "A place to come to every night",
              "Wherever in the world I roam", "My heart will always lead me home"]],
    "the wind": [["The wind runs over hill and plain", "It shakes the tree, it drives the rain",
                  "You cannot hold it, cannot see", "But it is dancing wild and free"]],
    "music": [["A little tune, a little song", "Can help a weary soul along",
               "It lifts the feet, it warms the heart", "It brings us close when far apart"]],
    "time": [["The clock goes ticking on the wall", "It does not wait for us at all",
              "So take the hour that is today", "Before it softly slips away"]],
    "a dragon": [["A dragon slept upon its gold", "It was so tired, it was so old",
                  "A child came in and sat down near", "And whispered stories in its ear"]],
}  # fmt: skip
GENERIC = [
    ["I wrote a little poem today", "Of {t} I have so much to say", "It makes me smile, it makes me dream",
     "It sparkles like a mountain stream"],
]  # fmt: skip
OTHER_TOPICS = """cheese books trains bread pizza school horses whales bees clouds rivers mountains
colours bicycles penguins apples cats dogs birds fish shoes tea holidays dreams cities roads bridges
robots elephants mice lions numbers words letters soup cake gardens islands boats planes ghosts
snails frogs candles rainbows tigers football chess dancing painting cooking""".split()

ASK_HAIKU = [
    "Write a haiku[.|]", "Write [me |]a haiku[, please|].", "[Can|Could] you write [me |]a haiku?",
    "[Give|Tell] me a haiku[.|]", "[Compose|Make|Create] a haiku[ for me|].", "A haiku, please.",
    "Haiku!", "I would like a haiku.", "Do you know a haiku?", "Please write a haiku.",
]  # fmt: skip
ASK_POEM = [
    "Write a [short |little |]poem[.|]", "Write [me |]a poem[, please|].",
    "[Can|Could] you write [me |]a [short |]poem?", "[Give|Tell] me a poem[.|]",
    "[Compose|Make|Create] a poem[ for me|].", "A poem, please.", "I would like a poem.",
    "Do you know a poem?", "Please write a [short |]poem.",
]  # fmt: skip
_SAME = {"the sea": ["the ocean", "the sea", "waves"], "stars": ["the stars", "a star", "stars"],
         "a cat": ["cats", "my cat", "a cat"], "a dog": ["dogs", "my dog", "a dog"],
         "trees": ["a tree", "the forest", "trees"], "flowers": ["a flower", "roses", "flowers"],
         "the moon": ["the moon", "moonlight"], "code": ["programming", "code", "software", "coding"],
         "autumn": ["autumn", "fall", "leaves"], "birds": ["birds", "a bird"],
         "mountains": ["mountains", "a mountain"], "a computer": ["a computer", "computers"],
         "computers": ["computers", "a computer", "technology"], "a robot": ["a robot", "robots"],
         "artificial intelligence": ["artificial intelligence", "AI", "machine learning"],
         "the sun": ["the sun", "sunshine", "the sunrise"], "night": ["night", "the night"],
         "rain": ["rain", "the rain"], "love": ["love", "my love"], "a river": ["a river", "water"],
         "a dragon": ["a dragon", "dragons"], "spring": ["spring", "nature"]}  # fmt: skip


def exchange(rng: random.Random) -> Exchange:
    return _haiku(rng) if rng.random() < 0.5 else _poem(rng)


def _haiku(rng: random.Random) -> Exchange:
    topic = rng.choice(list(HAIKU))
    question = pick(rng, ASK_HAIKU)
    if rng.random() < 0.7:
        question = _about(rng, question, topic)
    lines = rng.choice(HAIKU[topic])
    return ask(loosen(rng, question), "\n".join(capitalise(line) for line in lines))


def _poem(rng: random.Random) -> Exchange:
    topic = rng.choice(list(QUATRAINS))
    question = pick(rng, ASK_POEM)
    verses = list(QUATRAINS[topic])
    roll = rng.random()
    if roll < 0.25:
        topic = rng.choice(OTHER_TOPICS)
        question = _about(rng, question, topic)
        verses = [[line.format(t=topic) for line in verse] for verse in GENERIC]
    elif roll < 0.8:
        question = _about(rng, question, topic)
    lines = rng.choice(verses)
    stops = [",", ".", ",", "."]
    text = "\n".join(line + stop for line, stop in zip(lines, stops, strict=True))
    return ask(loosen(rng, question), text)


def _about(rng: random.Random, question: str, topic: str) -> str:
    topic = rng.choice(_SAME.get(topic, [topic]))
    end = question[-1] if question[-1] in ".?!" else ""
    link = rng.choice(["about", "about", "about", "on"])
    body = question.rstrip(".?!")
    if body.endswith(", please"):
        return f"{body[: -len(', please')]} {link} {topic}, please{end}"
    return f"{body} {link} {topic}{end}"
