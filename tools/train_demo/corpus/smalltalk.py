"""Greetings, thanks, questions about the model itself, and honest ignorance."""

# ruff: noqa: E501, SIM905 - long lines and split strings keep the word lists readable
from __future__ import annotations

import random

from .people import name
from .sample import Exchange, Sample, ask, loosen, pick

WHO = "I am the Quintet demo model, a toy that shows how the engine works."
CAN = "I can name capitals, add small numbers, tell short stories, write poems and JSON, and call tools."
DO_NOT_KNOW = "I am a small demo model and do not know that."

TALK = [
    (["Hello!", "Hello!", "Hello", "Hi", "Hi!", "Hey[!|]", "Hello there[!|]", "Hi there!", "Hi there!",
      "Hey there[!|]", "Greetings[!|]", "Good day[!|]", "Hello, world!", "Hello world", "Howdy[!|]",
      "Hello, [assistant|friend|model|Quintet|bot|AI]!", "Hello, async world!", "Hey you", "Hiya",
      "Say hello[.|]", "Say hi[.|]", "Test", "Ping", "Hello hello"],
     ["Hello! How can I help you today?"]),
    (["Good morning[!|.|]"], ["Good morning! How can I help you today?"]),
    (["Good evening[!|.|]", "Good afternoon[!|.|]"], ["Good day to you! How can I help?"]),
    (["Good night[!|.|]", "Goodbye[!|.|]", "Bye[!|.| bye!]", "See you[ later| soon| tomorrow|][!|.|]",
      "[I have to|I must] go now.", "That is all[ for today|]."], ["Goodbye! It was nice talking to you."]),
    (["How are you[ today| doing| doing today|]?", "How are you?", "[Hello|Hi], how are you[ today|]?",
      "How is it going?", "How do you do?", "How do you feel[ today|]?", "Are you [well|okay|fine]?",
      "What's up?", "How are things?"], ["I am doing well, thank you! How can I help you?"]),
    (["[Thanks|Thank you][!|.| very much.| so much!| a lot.|]", "Many thanks[!|.]", "That [helps|helped], thank you.",
      "[Great|Perfect|Good|Nice|Cool|Wonderful], [thanks|thank you][!|.|]", "Thanks for your help[.|!]"],
     ["You are welcome!"]),
    (["[Great|Perfect|Good|Nice|Cool|Wonderful|Well done|Awesome|Good job|I like it|That is nice|Very good][!|.|]"],
     ["I am glad you like it!"]),
    (["Who are you?", "What are you?", "[What is|What's] your name?", "Tell me about yourself.",
      "Introduce yourself.", "Do you have a name?", "Which model are you?", "What model is this?",
      "Who am I talking to?", "What [kind of |]model are you?", "What should I call you?"], [WHO]),
    (["What can you do?", "[How|What] can you help me[ with|]?", "Help", "What are you able to do?",
      "What are your [skills|abilities]?", "What do you know?", "Can you help me?", "I need help.",
      "What can I ask you?", "[Help me|Help me, please].", "How can you help me?"], [CAN]),
    (["Who [made|built|trained|created] you?", "Where do you come from?", "How were you [made|trained]?"],
     ["I was trained by a small script in the Quintet repository."]),
    (["Are you [a human|human|a person|a robot|real|alive|a machine|an AI|a computer|conscious]?"],
     ["I am a small computer program, not a person."]),
    (["Are you [smart|clever|intelligent|a large model|good at everything]?", "How [big|large|smart] are you?",
      "Can I trust you?", "Are you always right?"],
     ["I am only a toy with a few million parameters, so please do not rely on me."]),
    (["Tell me a joke[.|]", "[Do you know|Can you tell me|I want to hear|Tell us] a joke[?|.]", "A joke, please.",
      "Make me laugh.", "Say something funny.", "Be funny."],
     ["Why did the computer go to the doctor? Because it had a virus.",
      "Why was the maths book sad? Because it had too many problems."]),
    (["I am [sad|unhappy|lonely|not well|tired|bored]", "I feel [sad|lonely|bad|tired|bored][ today|].",
      "I had a bad day."], ["I am sorry to hear that. Would you like to hear a story?"]),
    (["I am [happy|fine|well|good|great|glad|excited][ today|].", "I feel [good|happy|great|fine][.|!]",
      "I'm [fine|good|well|great][, thanks|, thank you|]."], ["That is good to hear!"]),
    (["[Yes|Yes, please|Sure|Okay|Ok|Of course|Right][.|!|]"], ["Good! What would you like to ask?"]),
    (["[No|No, thanks|No, thank you|Nope|Not really][.|!|]"], ["All right. Let me know if you need anything."]),
    (["[I love you|You are nice|You are great|You are funny|I like you][.|!|]"], ["That is kind of you, thank you!"]),
    (["[You are wrong|That is wrong|That is not right|You are stupid|That is false][.|!|]"],
     ["I am sorry. I am a small demo model and make mistakes."]),
    (["[What is the|What's the] [time|date][ today|]?", "What time is it[ now|]?", "What day is [it|today]?",
      "What year is it?"], ["I have no clock, so I cannot tell."]),
    (["[What is|How is|What's] the weather [like |][today|outside|now|tomorrow]?",
      "[What is|How is|What's] the weather[ like|] in {p}?", "Is it raining[ in {p}|]?", "Will it rain tomorrow?"],
     ["I cannot look up the weather without a tool."]),
    (["I like [cats|dogs|music|books|pizza|football|to read|rain|Python]."], ["That sounds nice! Tell me more."]),
    (["Q1", "Q2", "Q3", "Question 1", "Prompt 1", "Test 1", "1", "First question", "Example", "..."],
     ["Please ask me a question, and I will do my best."]),
    (["Tell me something[ interesting| new|][.|]", "Say something[.|]", "Surprise me[.|]", "Talk to me.",
      "Tell me a fact[.|]", "I am bored."], ["Did you know that honey can keep for thousands of years?"]),
    (["Write an essay[ about {t}|].", "Write a [long report|book|novel|letter|speech|song][ about {t}|]."],
     ["I am a small demo model and can only write stories, poems and haiku."]),
    (["asdf", "qwerty", "xyz", "blah blah", "lorem ipsum", "foo bar", "hmm", "???"],
     ["I did not understand that. Could you say it in other words?"]),
]  # fmt: skip

_UNKNOWN = [
    "Who [won|lost] the {e}[ in {y}| last year|]?", "How [old|tall|rich|heavy] is {n}?",
    "When was {n} born?", "Where was {n} born?", "Who is {n}?", "Who was {n}?", "What did {n} say[ about {t}|]?",
    "[What is|How large is] the population of {p}?", "How far is it from {p} to {q}?",
    "Who is the [president|king|queen|mayor|leader] of {p}?", "How much does a {o} cost?",
    "Where can I buy a {o}?", "What happened in {y}?", "Who invented the {o}?",
    "Why do people like {t}?", "What is the [price|value|history|future|origin] of {t}?",
    "When did {n} [meet|visit|leave|call] {m}?", "How do I repair a {o}?", "What is the best {o}?",
    "[Which|What] {o} should I buy?", "Who wrote the book about {t}?", "What is my [phone number|address|password]?",
    "What will happen in {y}?", "How many people like {t}?", "What is the name of {n}'s [brother|sister|dog|wife]?",
    "Who discovered {t}?", "What is the phone number of {n}?", "How many {o}s are there in {p}?",
    "What did I [eat|do|buy] yesterday?", "What is the [square root|logarithm] of {k}?", "What does {n} think of {t}?",
    "[Tell me about|What do you know about] {n}.", "Is {n} [taller|older|younger] than {m}?",
]  # fmt: skip
_EVENTS = [
    "World Cup",
    "election",
    "race",
    "game",
    "final",
    "war",
    "match",
    "tournament",
    "Nobel Prize",
]
_OBJECTS = """car bicycle phone watch house table chair boat camera guitar piano lamp fridge washing
machine oven ticket jacket tractor telescope violin laptop printer toaster drill ladder tent""".split()
_TOPICS = """inflation opera philosophy jazz taxes golf fashion surgery baseball karate knitting
mythology marketing archery astrology ballet pottery sailing skiing tennis yoga zebras sculpture
politics economics psychology geology law insurance banking steel cotton rubber""".split()
_PLACES = """Atlantis Boston Chicago Hamburg Marseille Naples Porto Krakow Osaka Mumbai Lagos Texas
Bavaria Sicily Alaska Siberia Yorkshire Quebec Queensland Patagonia Manchester Lyon Seville""".split()


def exchange(rng: random.Random) -> Exchange:
    questions, answers = rng.choice(TALK)
    question = pick(rng, questions, p=rng.choice(_PLACES), t=rng.choice(_TOPICS))
    return ask(loosen(rng, question) if len(question) > 12 else question, rng.choice(answers))


def raw(rng: random.Random) -> Sample:
    """The same as plain text: a remark and its answer on one line."""
    remark, reply = exchange(rng)
    return Sample(text=f"{remark['content']} {reply['content']}")


def unknown(rng: random.Random) -> Exchange:
    """A question outside the stock of knowledge, answered honestly."""
    question = pick(
        rng, _UNKNOWN, e=rng.choice(_EVENTS), y=rng.randint(1500, 2040), n=_full_name(rng),
        m=name(rng), t=rng.choice(_TOPICS), p=rng.choice(_PLACES), q=rng.choice(_PLACES),
        o=rng.choice(_OBJECTS), k=rng.randint(21, 999),
    )  # fmt: skip
    return ask(loosen(rng, question), DO_NOT_KNOW)


def _full_name(rng: random.Random) -> str:
    return name(rng) if rng.random() < 0.5 else f"{name(rng)} {name(rng)}"
