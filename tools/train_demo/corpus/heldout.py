"""Wordings and names that are never trained on; evaluate.py asks them."""

# ruff: noqa: SIM905 - split strings keep the word lists readable
from __future__ import annotations

from .arithmetic import WORDS
from .capitals import CAPITALS

CAPITAL = [
    "Could you name the capital city of {c} for me?",
    "I forgot the capital of {c}, what is it?",
    "what city is {c}'s capital",
]
SUM = ["Could you add {a} and {b} for me?", "what would {a} plus {b} be?"]
DIFFERENCE = ["Could you subtract {b} from {a} for me?", "what would {a} minus {b} be?"]
INTRODUCTION = ["Good morning, my name is {n}.", "Hey there! I'm {n}."]
WHO_AM_I = ["Could you tell me my name?", "Do you recall what my name is?"]
STORY = [
    "Could you please tell me a little story?",
    "I'd love to hear a story.",
    "Tell me a story about a brave squirrel who found a bell.",
    "please write a nice story about a lonely whale",
    "Can you invent a story about a clever fox?",
]
HAIKU = [
    "Could you compose a haiku?",
    "I want a haiku about the sea",
    "Please make a haiku about snow.",
]
POEM = [
    "Could you compose a poem about the moon?",
    "I want a poem about stars",
    "Please make a short poem about winter.",
]
JSON = [
    "Please answer in JSON with the keys name and age: {n} is {a}",
    "Give the name and age as JSON. {n} is {a} years old.",
    "Using JSON, reply with name and age: {n} is {a}.",
]
WEATHER = [
    "Could you look up the weather in {c} for me?",
    "I'm in {c}, how is the weather?",
    "what's the weather going to be in {c}",
]
TALK = {
    "Hello to you!": "help",
    "how are you doing this morning?": "well",
    "thank you so very much": "welcome",
    "Could you tell me who you are?": "demo model",
    "So, what are you able to help me with?": "capitals",
}
KNOWLEDGE = {
    "Could you explain what AI is?": "machines",
    "Can you describe machine learning to me?": "examples",
    "Could you tell me what Python is?": "programming language",
    "Would you explain quantum computing?": "qubits",
    "I wonder what a neural network is.": "layers",
    "Could you explain decorators to me?": "function",
    "Help me understand gravity.": "force",
    "What can you tell me about photosynthesis?": "sunlight",
    "Could you define JSON?": "format",
    "Help me understand what a volcano is.": "mountain",
}
UNKNOWN = [
    "Who won the chess tournament in 1987?",
    "How much does a submarine cost?",
    "What is the phone number of Gregor Samsa?",
    "Who is the mayor of Springfield?",
    "When was Horatio Dunk born?",
]
NAMES = """Abigail Albert Alfred Amelia Amanda Amos Angela Annika Arthur Astrid August Ava Barbara
Basil Bernard Bertha Blake Brenda Brian Bridget Caleb Camille Carmen Caroline Casper Catherine
Cedric Celia Christine Clarence Claude Clement Connor Cynthia Damian Darius Dennis Derek Dominic
Doris Douglas Dylan Edgar Edith Eleanor Elias Elliot Eloise Elsa Emily Enrique Erica Ernest Eugene
Eva Evelyn Fabian Faith Fernando Florence Gareth Gemma Gerald Gilbert Giovanni Gwen Harold Harriet
Harvey Hector Henrietta Herbert Hilda Horace Imogen Irma Ismael Jacob Jasmine Jeremy Jessica Joan
Joel Jonas Josephine Joshua Judith Justin Keith Kenneth Larry Leonard Lily Lorenzo Louisa Magnus
Malcolm Marcus Margaret Matilda Maurice Maya Miranda Mohandas Naomi Natalie Neville Noel Norman
Pedro Penelope Percy Phoebe Priscilla Raymond Roger Roland Rosalind Rupert Sabrina Samantha Selma
Seth Sheila Silas Sophie Stella Sylvia Tabitha Theodore Tobias Trevor Ulysses Violet Wanda Warren
Winifred Zachary Zelda""".split()


def all_wordings() -> list[str]:
    """Every held-out question that has no free name in it, spelled out."""
    numbers = [str(n) for n in range(21)] + WORDS
    pairs = [{"a": a, "b": b} for a in numbers for b in numbers]
    filled = [w.format(c=c) for w in CAPITAL + WEATHER for c in CAPITALS]
    filled += [w.format(**pair) for w in SUM + DIFFERENCE for pair in pairs]
    return [*filled, *WHO_AM_I, *STORY, *HAIKU, *POEM, *TALK, *KNOWLEDGE, *UNKNOWN]
